"""A window as one matrix, and what a choice of field orders for its rows lets them share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from spark_llm.optimizer.columns import Column

Ints = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.int32]
Orders = npt.NDArray[np.unsignedinteger]
Bools = npt.NDArray[np.bool_]

_SLICE = 1 << 14
"""Rows at a time where each needs a few hundred bytes."""


@dataclass(frozen=True, slots=True)
class Table:
    """The window as one matrix of cell numbers: equal numbers are equal cells, across all columns.

    `cells` (n, m), a column contiguous; `lengths` and `repeated` (in more than one row), both (k,), by cell number; the
    cells of a column are numbered from its `starts` (m,) on. Here and below, whatever has a value per cell is made
    column by column, or slice by slice: a temporary copy of it all would be the peak of memory.
    """

    columns: Sequence[Column]
    starts: Numbers
    cells: Numbers
    lengths: Numbers
    repeated: Bools


def as_table(columns: Sequence[Column]) -> Table:
    """Number the cells of all columns."""
    starts = np.cumsum([0, *(len(column.lengths) for column in columns[:-1])], dtype=np.int32)
    cells = np.empty((len(columns), len(columns[0].codes)), np.int32)
    for numbers, column, start in zip(cells, columns, starts, strict=True):
        np.add(column.codes, start, out=numbers)
    lengths = np.concatenate([column.lengths for column in columns])
    repeated = np.concatenate([np.bincount(column.codes, minlength=len(column.lengths)) > 1 for column in columns])
    return Table(columns, starts, cells.T, lengths, repeated)


def arrange(table: Table, order: Orders) -> tuple[float, Ints]:
    """Sort the rows by their cells as laid out, and count the characters shared with the row before.

    Rows sorted so are neighbours of the row with which they share most, so the count is that of a trie.
    """
    every = np.arange(len(order))
    laid = np.stack([table.cells[every, leading] for leading in order.T])
    rows = np.lexsort(laid[::-1])
    equal, depth, hits = np.ones(max(len(rows) - 1, 0), bool), np.zeros(max(len(rows) - 1, 0), order.dtype), 0.0
    for column in laid:
        cells = column[rows]
        equal &= cells[1:] == cells[:-1]
        hits += float(table.lengths[cells[1:][equal]].sum())
        depth += equal
    return hits + _partial(table, rows, order, depth), rows


def _partial(table: Table, rows: Ints, order: Orders, depth: Orders) -> float:
    """Characters shared by the first cells that differ, as far as their prefixes reach."""
    above, shared = np.flatnonzero(depth < order.shape[1]), 0.0
    for start in range(0, len(above), _SLICE):
        upper = above[start : start + _SLICE]
        first = order[rows[upper], depth[upper]]
        same = first == order[rows[upper + 1], depth[upper]]
        for number in range(order.shape[1]):
            here = upper[same & (first == number)]
            shared += _shared_beginnings(table.columns[number], rows[here], rows[here + 1])
    return shared


def _shared_beginnings(column: Column, upper: Ints, lower: Ints) -> float:
    """Characters that the column's cells of some rows share with those of others, which differ from them."""
    left, right = column.codes[upper], column.codes[lower]
    differs = column.prefixes[left] != column.prefixes[right]
    common = np.where(differs.any(axis=1), differs.argmax(axis=1), differs.shape[1])
    return float(np.minimum(column.label + column.reach[left, common], column.lengths[left]).sum())
