"""The result log as one task of one call uses it."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
from pyarrow import fs

from spark_llm.conf import Settings
from spark_llm.errors import LlmError
from spark_llm.optimizer.core import CallSpec
from spark_llm.optimizer.identity import IdentityRule
from spark_llm.result_log.call import call_folder
from spark_llm.result_log.files import HITS, Entry, list_folder, open_log, put
from spark_llm.result_log.lookup import AnswerLookup, read_lookup
from spark_llm.result_log.writer import AnswerWriter


@dataclass(frozen=True, slots=True)
class LogPlan:
    """What the plan says about a call's log (`CallSpec.log`).

    `folder` is the call's; with `joined`, Spark has joined the log's answers and hands them over in a column after
    the arguments; `since` is the time of the newest file then, in seconds.
    """

    folder: str
    since: float
    joined: bool


class TaskLog:
    """Looks up answers and appends new ones.

    Where Spark has joined the log, only what the same task wrote in an earlier attempt is looked up. Elsewhere (no JAR,
    a stream, a call that is asked in place) the whole log of the call is.
    """

    def __init__(self, system: fs.FileSystem, root: str, folder: str, partition: int, call: str) -> None:
        self._system, self._root, self._call = system, root, folder
        self._folder = f"{root}/{folder}"
        self._writer = AnswerWriter(system, self._folder, partition, call)
        self._lookup: AnswerLookup | None = None
        self._hits = 0

    @classmethod
    def open(cls, spec: CallSpec, settings: Settings, rule: IdentityRule, partition: int) -> TaskLog | None:
        """The log of a call; None where it is off, or the call is not deterministic.

        Raises
        ------
        LlmError
            `LLM_BAD_CONF` for a path of no file system.
        EngineFailure
            `LLM_UNKNOWN_MODEL`.
        """
        path = settings.text("resultLog.path")
        if not path or not spec.deterministic:
            return None
        system, root = open_log(path)
        plan = LogPlan(**spec.log) if spec.log else LogPlan(call_folder(spec, rule), 0.0, joined=False)
        log = cls(
            system, root, plan.folder, partition, f"{spec.function} on {settings.model(spec.options.get('model')).name}"
        )
        log._read(plan, partition)
        return log

    def _read(self, plan: LogPlan, partition: int) -> None:
        try:
            entries = list_folder(self._system, self._folder).current
            if plan.joined:
                entries = tuple(e for e in entries if e.file.partition == partition and e.changed >= plan.since)
            self._lookup, unreadable = _cached(self._system, self._folder, entries)
        except (OSError, pa.ArrowException) as problem:
            _complain(f"reading failed ({type(problem).__name__})")
        else:
            if unreadable:
                _complain(f"{unreadable} files could not be read")

    def find(self, identities: Sequence[bytes]) -> pa.Array:
        """The answers that the log holds, as strings; NULL for a tuple that must be asked."""
        return self._lookup.find(identities) if self._lookup else pa.nulls(len(identities), pa.string())

    def count_hits(self, tuples: int) -> None:
        """So many tuples were answered by the log, joined or looked up."""
        self._hits += tuples

    def record(self, identity: bytes, answer: str) -> None:
        """Append an answer that was asked for."""
        self._writer.add(identity, answer)

    def close(self) -> None:
        """Make all answers durable."""
        self._writer.close()
        if self._hits:
            try:
                put(self._system, f"{self._root}/{HITS}/{self._call}-{secrets.token_hex(8)}-{self._hits}", b"")
            except OSError:
                return  # a log that may only be read


_kept: dict[str, tuple[frozenset[Entry], AnswerLookup]] = {}


def _cached(system: fs.FileSystem, folder: str, entries: Sequence[Entry]) -> tuple[AnswerLookup, int]:
    """The answers of the files, kept for the next task of this process that reads the same."""
    same = frozenset(entries)
    if folder in _kept and _kept[folder][0] == same:
        return _kept[folder][1], 0
    lookup, unreadable = read_lookup(system, entries)
    _kept.clear()
    _kept[folder] = same, lookup
    return lookup, unreadable


def _complain(detail: str) -> None:
    print(LlmError("LLM_RESULT_LOG", detail=detail), file=sys.stderr)
