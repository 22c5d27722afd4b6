"""A window as one matrix, and what a choice of field orders for its rows lets them share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from spark_llm.optimizer.columns import Column

Numbers = npt.NDArray[np.int32]
Orders = npt.NDArray[np.unsignedinteger]
Bools = npt.NDArray[np.bool_]

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
    lengths = np.concatenate([column.lengths for column in columns])
    cells = np.empty((len(columns), len(columns[0].codes)), np.int32)
    start = 0
    for numbers, column in zip(cells, columns, strict=True):
        np.add(column.codes, np.int32(start), out=numbers)
        start += len(column.lengths)
    return cells, lengths


def arrange(columns: Sequence[Column], order: Orders) -> tuple[float, Numbers]:
    """Sort the rows by their cells as laid out, and count the characters shared with the row before.

    Rows sorted so are neighbours of the row with which they share most, so the count is that of a trie.
    """
    cells, lengths = number_cells(columns)
    every = np.arange(len(order), dtype=np.int32)
    laid = np.stack([cells[leading, every] for leading in order.T])
    del cells
    rows = np.lexsort(laid[::-1]).astype(np.int32)
    equal, depth, hits = np.ones(max(len(rows) - 1, 0), bool), np.zeros(max(len(rows) - 1, 0), order.dtype), 0.0
    for position in laid:
        sorted_cells = position[rows]
        equal &= sorted_cells[1:] == sorted_cells[:-1]
        hits += float(lengths[sorted_cells[1:][equal]].sum())
        depth += equal
    return hits + _partial(columns, rows, order, depth), rows


def _partial(columns: Sequence[Column], rows: Numbers, order: Orders, depth: Orders) -> float:
    """Characters shared by the first cells that differ, as far as their prefixes reach."""
    above, shared = np.flatnonzero(depth < order.shape[1]), 0.0
    for start in range(0, len(above), _SLICE):
        upper = above[start : start + _SLICE]
        first = order[rows[upper], depth[upper]]
        same = first == order[rows[upper + 1], depth[upper]]
        for number in range(order.shape[1]):
            here = upper[same & (first == number)]
            shared += _shared_beginnings(columns[number], rows[here], rows[here + 1])
    return shared


def _shared_beginnings(column: Column, upper: Numbers, lower: Numbers) -> float:
    """Characters that the column's cells of some rows share with those of others, which differ from them."""
    left, right = column.codes[upper], column.codes[lower]
    differs = column.prefixes[left] != column.prefixes[right]
    common = np.where(differs.any(axis=1), differs.argmax(axis=1), differs.shape[1])
    return float(np.minimum(column.label + column.reach[left, common], column.lengths[left]).sum())
