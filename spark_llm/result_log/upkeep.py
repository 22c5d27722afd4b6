"""What a log holds, and how it is kept small; safe beside queries that read and write it.

A query that has listed a file may read it later: files are removed when they are older than `GRACE_SECONDS`. If one
goes earlier (`expire`), its answers are asked for again, and nothing else happens.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs

from spark_llm.result_log.batches import described, read_batch, to_bytes
from spark_llm.result_log.files import (
    GRACE_SECONDS,
    HITS,
    Entry,
    Listing,
    LogFile,
    list_folder,
    put,
    remove,
    remove_replaced,
)

COMPACTED_BYTES = 64 << 20
"""So many bytes of files become one."""


@dataclass(frozen=True, slots=True)
class CallSummary:
    """One call's answers: what was asked in words, counts, bytes, times in seconds since 1970, hits of later queries.

    `answers` counts an answer once for each file that holds it.
    """

    folder: str
    asked: str
    answers: int
    files: int
    size: int
    torn: int
    first: float
    last: float
    hits: int


def summarize(system: fs.FileSystem, root: str) -> list[CallSummary]:
    """The calls of a log, the largest first."""
    hits = _hits(system, root)
    found = []
    for folder in _folders(system, root):
        listing = list_folder(system, f"{root}/{folder}")
        files = listing.current
        times = [entry.changed for entry in files]
        found.append(
            CallSummary(
                folder,
                _asked(system, files),
                sum(entry.file.answers for entry in files),
                len(files),
                sum(entry.file.size for entry in (*files, *listing.replaced)),
                len(listing.torn),
                min(times, default=0.0),
                max(times, default=0.0),
                hits[folder],
            )
        )
    return sorted(found, key=lambda call: -call.size)


def _folders(system: fs.FileSystem, root: str) -> list[str]:
    infos = system.get_file_info(fs.FileSelector(root, allow_not_found=True))
    return [info.base_name for info in infos if info.type == fs.FileType.Directory and info.base_name != HITS]


def _asked(system: fs.FileSystem, files: Sequence[Entry]) -> str:
    for entry in files:
        try:
            return described(system, entry.path)
        except (OSError, pa.ArrowException):
            continue
    return ""


def _hits(system: fs.FileSystem, root: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    for info in system.get_file_info(fs.FileSelector(f"{root}/{HITS}", allow_not_found=True)):
        call, _, number = info.base_name.split("-")
        counts[call] += int(number)
    return counts


def compact(system: fs.FileSystem, root: str, grace: float = GRACE_SECONDS) -> tuple[int, int]:
    """Merge files older than `grace` seconds, drop repeated answers, replaced, unfinished and torn files.

    Returns
    -------
    (int, int)
        The number of files before and after.
    """
    before = after = 0
    limit = time.time() - grace
    for name in _folders(system, root):
        folder = f"{root}/{name}"
        listing = list_folder(system, folder)
        before += len(listing.current) + len(listing.replaced) + len(listing.torn)
        remove_replaced(system, listing, grace)
        remove(system, (path for path, changed in listing.torn if changed < limit))
        for files in _groups([entry for entry in listing.current if entry.changed < limit]):
            _merge(system, folder, files)
        left = list_folder(system, folder)
        after += len(left.current) + len(left.replaced) + len(left.torn)
    _compact_hits(system, root)
    return before, after


def _groups(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Files to merge: two or more of together about `COMPACTED_BYTES`."""
    group: list[Entry] = []
    size = 0
    for entry in sorted(entries, key=lambda e: e.file.size):
        group.append(entry)
        size += entry.file.size
        if size >= COMPACTED_BYTES:
            yield from [group] if len(group) > 1 else []
            group, size = [], 0
    if len(group) > 1:
        yield group


def _merge(system: fs.FileSystem, folder: str, files: Sequence[Entry]) -> None:
    tables, read = [], []
    for entry in files:
        try:
            tables.append(read_batch(system, entry.path))
        except (OSError, pa.ArrowException):
            continue  # torn, or removed by another compaction
        read.append(entry)
    if len(read) > 1:
        _write(system, folder, _distinct(pa.concat_tables(tables)), _asked(system, read))
        remove(system, (entry.path for entry in read))


def _distinct(table: pa.Table) -> pa.Table:
    """The newest row of each identity."""
    ordered = table.sort_by([("written", "descending")])
    identities = np.array(ordered["identity"].to_pylist(), dtype=object)
    _, first = np.unique(identities, return_index=True)
    return ordered.take(pa.array(np.sort(first)))


def _write(system: fs.FileSystem, folder: str, table: pa.Table, asked: str) -> None:
    data = to_bytes(table, asked)
    file = LogFile(0, secrets.token_hex(8), 0, 0, table.num_rows, data.size)
    put(system, f"{folder}/{file.name}", data)


def _compact_hits(system: fs.FileSystem, root: str) -> None:
    infos = system.get_file_info(fs.FileSelector(f"{root}/{HITS}", allow_not_found=True))
    counts = _hits(system, root)
    if len(infos) > len(counts):
        for call, number in counts.items():
            put(system, f"{root}/{HITS}/{call}-{secrets.token_hex(8)}-{number}", b"")
        remove(system, (info.path for info in infos))


def expire(system: fs.FileSystem, root: str, seconds: float) -> int:
    """Remove answers written more than `seconds` ago; returns how many."""
    limit = time.time() - seconds
    removed = 0
    for name in _folders(system, root):
        listing = list_folder(system, f"{root}/{name}")
        removed += _expire_folder(system, f"{root}/{name}", listing, limit)
    return removed


def _expire_folder(system: fs.FileSystem, folder: str, listing: Listing, limit: float) -> int:
    expired = []
    removed = 0
    for entry in listing.current:
        try:
            table = read_batch(system, entry.path)
        except (OSError, pa.ArrowException):
            continue
        kept = table.filter(pc.greater_equal(table["written"], int(limit)))
        if kept.num_rows == table.num_rows:
            continue
        if kept.num_rows:
            _write(system, folder, kept, described(system, entry.path))
        expired.append(entry.path)
        removed += table.num_rows - kept.num_rows
    if expired:
        # What these replaced would count again.
        remove(system, (entry.path for entry in listing.replaced))
        remove(system, expired)
    return removed
