"""Answers of the log in memory, for a task to look up."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
from pyarrow import fs

from spark_llm.result_log.batches import SCHEMA, read_batch
from spark_llm.result_log.files import Entry

MAX_BYTES = 256 << 20
"""So many bytes of files are read, the newest first."""
READERS = 8


class AnswerLookup:
    """Answers by identity: sorted by its first eight bytes, compared whole."""

    def __init__(self, table: pa.Table) -> None:
        table = table.combine_chunks()
        self.answers = table.num_rows
        identities = np.frombuffer(b"".join(table["identity"].to_pylist()), dtype="V32")
        keys = _keys(identities)
        order = np.argsort(keys, kind="stable")
        self._keys, self._identities = keys[order], identities[order]
        self._texts = table["answer"].combine_chunks().cast(pa.large_string()).take(pa.array(order))

    def find(self, identities: Sequence[bytes]) -> pa.Array:
        """The answer to each identity, as strings; NULL where there is none."""
        if not self.answers or not identities:
            return pa.nulls(len(identities), pa.string())
        wanted = np.frombuffer(b"".join(identities), dtype="V32")
        places = np.searchsorted(self._keys, _keys(wanted)).clip(max=self.answers - 1)
        found = self._identities[places] == wanted
        return self._texts.take(pa.array(places, mask=~found)).cast(pa.string())


def _keys(identities: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(identities).view(np.uint64)[::4]


def read_lookup(system: fs.FileSystem, entries: Sequence[Entry]) -> tuple[AnswerLookup, int]:
    """The answers in `entries`, and how many of the files could not be read."""
    chosen: list[Entry] = []
    size = 0
    for entry in sorted(entries, key=lambda e: e.changed, reverse=True):
        size += entry.file.size
        if size > MAX_BYTES and chosen:
            break
        chosen.append(entry)
    if not chosen:
        return AnswerLookup(SCHEMA.empty_table()), 0
    with ThreadPoolExecutor(READERS) as pool:
        tables = list(pool.map(lambda entry: _read(system, entry), chosen))
    known = [table for table in tables if table is not None]
    return AnswerLookup(pa.concat_tables([SCHEMA.empty_table().select(_COLUMNS), *known])), len(tables) - len(known)


_COLUMNS = ["identity", "answer"]


def _read(system: fs.FileSystem, entry: Entry) -> pa.Table | None:
    try:
        return read_batch(system, entry.path, _COLUMNS)
    except (OSError, pa.ArrowException):
        return None
