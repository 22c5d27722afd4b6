"""Greedy group recursion: every row's field order, depth by depth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from spark_llm.optimizer.arrangement import Blocks, Bools, Numbers, Orders
from spark_llm.optimizer.blocks import choose_blocks
from spark_llm.optimizer.columns import Column
from spark_llm.optimizer.groups import constant_columns, dense, paired, shared_rows, spread

Floats = npt.NDArray[np.float64]


def greedy_orders(
    columns: Sequence[Column], statistics: Orders, pinned: int, exponent: float, blocks: Blocks
) -> Orders:
    """Every row's field order, depth by depth; groups of rows with equal beginnings are split further.

    Whatever has a value per cell is made column by column, or slice by slice: a temporary copy of it all would be the
    peak of memory.
    """
    n, m = len(columns[0].codes), len(columns)
    order, depth = np.empty((n, m), statistics.dtype), np.zeros(n, statistics.dtype)
    free = np.ones((m, n), bool).T
    rows = np.arange(n, dtype=np.int32)
    for column in statistics[:pinned]:
        _place(column, rows, order, depth, free)
    parent = group_pinned(columns, statistics[:pinned])
    while len(rows):
        ids, served = _blocks(columns, rows, parent, free, statistics, blocks)
        chosen = choose_blocks(ids, served**exponent)
        rows, parent, group = _sorted_members(rows, parent, chosen)
        if not len(rows):
            break
        starts = np.flatnonzero(np.diff(group, prepend=-1))
        constant = spread(constant_columns(columns, rows, starts), starts, len(rows)) & free[rows]
        for column in _shared_first(columns, rows, parent, group, constant, statistics):
            _place(column, rows[constant[:, column]], order, depth, free)
        open_rows = (np.bincount(group)[group] > 2) & free[rows].any(axis=1)
        rows, parent = rows[open_rows], group[open_rows]
    for column in statistics:
        _place(column, np.flatnonzero(free[:, column]), order, depth, free)
    return order


def group_pinned(columns: Sequence[Column], pinned: Orders) -> Numbers:
    """Each row's group: rows that agree in the pinned columns."""
    codes = [columns[column].codes for column in pinned]
    return dense(np.stack(codes, axis=1)) if codes else np.zeros(len(columns[0].codes), np.int32)


def _blocks(
    columns: Sequence[Column], rows: Numbers, parent: Numbers, free: Bools, statistics: Orders, blocks: Blocks
) -> tuple[Numbers, Floats]:
    """Rows of a group that agree in a free column form a block.

    Returns
    -------
    ids : int array of shape (rows, columns)
        The block of every cell, columns in the order of `statistics`; block 0 holds the cells that stand alone.
    served : float array of shape (blocks,)
        What the cache serves of one shared row: all free columns that are constant in the block, behind those placed.
    """
    ids, served, count = np.zeros((len(rows), len(statistics)), np.int32), [np.zeros(1)], 1
    for position, column in enumerate(statistics):
        usable = np.flatnonzero(free[rows, column] & _repeated(columns[column], rows)).astype(np.int32)
        members, starts = shared_rows(usable, _keys(columns[column], rows[usable], parent[usable]))
        del usable
        if not len(members):
            continue
        first = rows[members[starts]]
        length = np.stack([c.lengths[c.codes[first]] for c in columns], axis=1)
        placed = (length * ~free[first]).sum(axis=1) if blocks.size > 1 else 0
        length *= free[first]
        length *= constant_columns(columns, rows[members], starts)
        served.append(blocks.served(placed, length.sum(axis=1)))
        ids[members, position] = count + spread(np.arange(len(starts)), starts, len(members))
        count += len(starts)
    return ids, np.concatenate(served)


def _repeated(column: Column, rows: Numbers) -> Bools:
    """Which of the rows have a value that another row of the window has."""
    return (np.bincount(column.codes) > 1)[column.codes[rows]]


def _keys(column: Column, rows: Numbers, parent: Numbers) -> npt.NDArray[np.signedinteger]:
    return paired(parent, column.codes[rows], len(column.lengths))


def _sorted_members(rows: Numbers, parent: Numbers, group: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """The rows that belong to a group, sorted by it, with their parent group; groups numbered from 0."""
    members = np.argsort(group, kind="stable")[np.count_nonzero(group < 0) :]
    group = group[members]
    return rows[members], parent[members], np.cumsum(np.diff(group, prepend=group[:1]) != 0, dtype=np.int32)


def _shared_first(
    columns: Sequence[Column], rows: Numbers, parent: Numbers, group: Numbers, constant: Bools, statistics: Orders
) -> list[int]:
    """The columns, those that groups of one parent share most first: inside a group any order is as good."""
    first = np.flatnonzero(np.diff(group, prepend=-1))
    scores = []
    for column in statistics:
        having = first[constant[first, column]]
        lengths, codes = columns[column].lengths, columns[column].codes[rows[having]]
        distinct = len(np.unique(paired(parent[having], codes, len(lengths))))
        scores.append(lengths[codes].mean() ** 2 * (len(having) / distinct - 1) if distinct else 0.0)
    return statistics[np.argsort(-np.array(scores), kind="stable")].tolist()


def _place(column: int, rows: npt.NDArray[np.integer], order: Orders, depth: Orders, free: Bools) -> None:
    order[rows, depth[rows]] = column
    depth[rows] += 1
    free[rows, column] = False
