"""The log's files: their names, which of them count, and how they are written whole or not at all."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from spark_llm.errors import LlmError

KEY = "spark.llm.resultLog.path"
HITS = "hits"
"""Folder of notes on how many answers tasks found: empty files, the number in the name."""
GRACE_SECONDS = 3600.0
"""A file that another one replaces stays so long: a query that has listed it may be about to read it."""
_NAME = re.compile(r"p(\d+)-([0-9a-f]{16})-(\d+)-(\d+)-(\d+)-(\d+)\.parquet")


@dataclass(frozen=True, slots=True)
class LogFile:
    """One file of answers; its name says all but where it is and how old.

    `first` and `last` number the batches of its writer that it holds: a file replaces those of the same writer whose
    batches it covers. `size` is what was written; a file of another length is torn.
    """

    partition: int
    writer: str
    first: int
    last: int
    answers: int
    size: int

    @property
    def name(self) -> str:
        return f"p{self.partition}-{self.writer}-{self.first}-{self.last}-{self.answers}-{self.size}.parquet"

    @classmethod
    def parse(cls, name: str) -> LogFile | None:
        found = _NAME.fullmatch(name)
        return found and cls(int(found[1]), found[2], *(int(found[i]) for i in range(3, 7)))

    def replaces(self, other: LogFile) -> bool:
        return self.writer == other.writer and self.first <= other.first and other.last <= self.last and self != other


@dataclass(frozen=True, slots=True)
class Entry:
    """A file as it was listed; `changed` is its time of writing in seconds, by the storage's clock."""

    file: LogFile
    path: str
    changed: float


@dataclass(frozen=True, slots=True)
class Listing:
    """A call's folder: files to read, files that others replace; torn and unfinished ones with their times."""

    current: tuple[Entry, ...] = ()
    replaced: tuple[Entry, ...] = ()
    torn: tuple[tuple[str, float], ...] = ()
    unfinished: tuple[tuple[str, float], ...] = ()


def open_log(path: str) -> tuple[fs.FileSystem, str]:
    """The file system of `spark.llm.resultLog.path` and the folder in it.

    Raises
    ------
    LlmError
        `LLM_BAD_CONF` where the path names none, or holds a password.
    """
    if ":" in (urlsplit(path).netloc.rpartition("@")[0]):
        raise LlmError("LLM_BAD_CONF", key=KEY, value="(hidden)", detail="credentials do not belong into the path")
    try:
        found, root = fs.FileSystem.from_uri(re.sub("^s3[an]:", "s3:", path))
    except (pa.ArrowException, OSError, ValueError) as problem:
        detail = f"{str(problem).splitlines()[0]}; accepted: an absolute path, file:, s3:, gs:, abfs: or hdfs: URI"
        raise LlmError("LLM_BAD_CONF", key=KEY, value=path, detail=detail) from None
    return found, root.rstrip("/")


def list_folder(system: fs.FileSystem, folder: str) -> Listing:
    """What a call's folder holds; empty where there is none."""
    entries, torn, unfinished = [], [], []
    for info in system.get_file_info(fs.FileSelector(folder, allow_not_found=True)):
        file = LogFile.parse(info.base_name)
        if file is None:
            unfinished += [(info.path, _seconds(info))] if info.extension == "tmp" else []
        elif info.size != file.size:
            torn.append((info.path, _seconds(info)))
        else:
            entries.append(Entry(file, info.path, _seconds(info)))
    replaced = _replaced(entry.file for entry in entries)
    return Listing(
        tuple(e for e in entries if e.file not in replaced),
        tuple(e for e in entries if e.file in replaced),
        tuple(torn),
        tuple(unfinished),
    )


def _seconds(info: fs.FileInfo) -> float:
    return (info.mtime_ns or 0) / 1e9


def _replaced(files: Iterable[LogFile]) -> set[LogFile]:
    """Those whose batches another file of their writer holds too."""
    found: set[LogFile] = set()
    last: LogFile | None = None
    for file in sorted(files, key=lambda f: (f.writer, f.first, -f.last, f.answers)):
        if last is not None and last.replaces(file):
            found.add(file)
        else:
            last = file
    return found


def put(system: fs.FileSystem, path: str, data: bytes | pa.Buffer) -> None:
    """Write a file so that it is seen whole or not at all: renamed into place, or one object put.

    Raises
    ------
    OSError
    """
    folder = str(PurePosixPath(path).parent)
    if isinstance(system, fs.LocalFileSystem):
        _put_local(Path(folder), Path(path), data)
        return
    system.create_dir(folder)
    renames = isinstance(system, fs.HadoopFileSystem)
    written = path + ".tmp" if renames else path
    with system.open_output_stream(written) as stream:
        stream.write(data)
    if renames:
        system.move(written, path)


def _put_local(folder: Path, path: Path, data: bytes | pa.Buffer) -> None:
    if not folder.is_dir():
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # answers are their owner's
        folder.mkdir(exist_ok=True)
    unfinished = path.with_name(path.name + ".tmp")
    try:
        with unfinished.open("wb") as stream:
            stream.write(memoryview(data))
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise


def remove(system: fs.FileSystem, paths: Iterable[str]) -> None:
    """Remove files, whoever else removes them too."""
    for path in paths:
        try:
            system.delete_file(path)
        except FileNotFoundError:
            continue


def remove_replaced(system: fs.FileSystem, listing: Listing, grace: float = GRACE_SECONDS) -> None:
    """Remove replaced and unfinished files so old that nobody can be about to read or to write them."""
    before = time.time() - grace
    old = [e.path for e in listing.replaced if e.changed < before]
    old += [path for path, changed in listing.unfinished if changed < before]
    remove(system, old)
