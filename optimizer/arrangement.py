"""A window as one matrix, and what a choice of field orders for its rows lets them share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from spark_llm.optimizer.columns import Codes, Column

Numbers = npt.NDArray[np.int32]
Orders = npt.NDArray[np.unsignedinteger]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Blocks:
    """How an engine's prefix cache counts: whole blocks of `size`, in the unit of the columns' lengths, of the prompt.

    `start` is the length of what stands before the first column, which all prompts share.
    """

    size: float = 1
    start: float = 0

    def served(self, begin: Any, length: Any) -> Any:
        """What the cache serves of `length` that follows `begin` after the start; arrays or numbers."""
        if self.size == 1:
            return length
        return ((self.start + begin + length) // self.size - (self.start + begin) // self.size) * self.size


_SLICE = 1 << 14
"""Rows at a time where each needs a few hundred bytes."""


def number_cells(columns: Sequence[Column]) -> tuple[Numbers, Numbers]:
    """The window as one matrix.

    Returns
    -------
    cells : int array of shape (m, n)
        The number of each row's cell: equal numbers are equal cells, across all columns.
    lengths : int array
        Characters by cell number.
    """
    lengths = np.concatenate([column.lengths for column in columns]).astype(np.int32)
    cells = np.empty((len(columns), len(columns[0].codes)), np.int32)
    start = 0
    for numbers, column in zip(cells, columns, strict=True):
        np.add(column.codes, np.int32(start), out=numbers)
        start += len(column.lengths)
    return cells, lengths


def arrange(columns: Sequence[Column], order: Orders, blocks: Blocks) -> tuple[float, Numbers]:
    """Sort the rows by their cells as laid out, and count what each shares with the row before, in whole blocks.

    Rows sorted so are neighbours of the row with which they share most, so the count is that of a trie.
    """
    rows = np.arange(len(order), dtype=np.int32)
    for leading in order.T[::-1]:
        rows = rows[_sorted(_cells(columns, leading[rows], rows))]
    slices = (rows[start : start + _SLICE + 1] for start in range(0, len(rows) - 1, _SLICE))
    return sum(float(blocks.served(0, _shared(columns, part, order[part])).sum()) for part in slices), rows


def _sorted(keys: Codes) -> npt.NDArray[np.integer]:
    """The stable order of small numbers, in little memory: of wide ones each is sorted together with its place."""
    if keys.itemsize <= 2:
        return np.argsort(keys, kind="stable")
    placed = keys.astype(np.int64)
    placed <<= 32
    placed |= np.arange(len(keys), dtype=np.uint32)
    placed.sort()
    return placed.astype(np.uint32)


def _cells(columns: Sequence[Column], chosen: Orders, rows: Numbers) -> Codes:
    """The cells of some rows by number, as `number_cells` has them, each in the column chosen for its row; the codes
    alone where all rows have one column."""
    found, start = np.empty(len(rows), np.int32), 0
    for number, column in enumerate(columns):
        here = chosen == number
        if here.all():
            return column.codes[rows]
        found[here] = column.codes[rows[here]] + np.int32(start)
        start += len(column.lengths)
    return found


def _shared(columns: Sequence[Column], rows: Numbers, order: Orders) -> npt.NDArray:
    """What each of some sorted rows shares with the row before: whole cells, and the beginnings of the first that
    differ; shape (rows - 1,). Row i of `order` is the field order of `rows[i]`."""
    equal, shared = np.ones(len(rows) - 1, bool), np.zeros(len(rows) - 1, np.result_type(np.int32, columns[0].lengths))
    for leading in order.T:
        same, going = np.zeros(len(shared), bool), equal & (leading[1:] == leading[:-1])
        for number, column in enumerate(columns):
            here = np.flatnonzero(going & (leading[1:] == number))
            upper, lower = column.codes[rows[here]], column.codes[rows[here + 1]]
            whole = upper == lower
            same[here] = whole
            shared[here[whole]] += column.lengths[lower[whole]]
            part, upper, lower = here[~whole], upper[~whole], lower[~whole]
            shared[part] += column.shared(upper, lower).astype(shared.dtype)
        equal = same
    return shared
