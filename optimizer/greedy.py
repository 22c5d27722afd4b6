"""Greedy group recursion: every row's field order, depth by depth."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from spark_llm.optimizer.arrangement import Bools, Numbers, Orders, Table
from spark_llm.optimizer.blocks import choose_blocks
from spark_llm.optimizer.groups import constant_columns, dense, paired, shared_rows, spread

Floats = npt.NDArray[np.float64]


def greedy_orders(table: Table, statistics: Orders, pinned: int, exponent: float) -> Orders:
    """Every row's field order, depth by depth; groups of rows with equal beginnings are split further."""
    n, m = table.cells.shape
    order, depth = np.empty((n, m), statistics.dtype), np.zeros(n, statistics.dtype)
    free = np.ones((m, n), bool).T
    rows = np.arange(n, dtype=np.int32)
    for column in statistics[:pinned]:
        _place(column, rows, order, depth, free)
    parent = dense(table.cells[:, statistics[:pinned]])
    while len(rows):
        chosen = choose_blocks(*_blocks(table, rows, parent, free, statistics, exponent))
        rows, parent, group = _sorted_members(rows, parent, chosen)
        if not len(rows):
            break
        starts = np.flatnonzero(np.diff(group, prepend=-1))
        constant = spread(constant_columns(table.cells, rows, starts), starts, len(rows)) & free[rows]
        for column in _shared_first(table, rows, parent, group, constant, statistics):
            _place(column, rows[constant[:, column]], order, depth, free)
        open_rows = (np.bincount(group)[group] > 2) & free[rows].any(axis=1)
        rows, parent = rows[open_rows], group[open_rows]
    for column in statistics:
        _place(column, np.flatnonzero(free[:, column]), order, depth, free)
    return order


def _blocks(
    table: Table, rows: Numbers, parent: Numbers, free: Bools, statistics: Orders, exponent: float
) -> tuple[Numbers, Floats]:
    """Rows of a group that agree in a free column form a block.

    Returns
    -------
    ids : int array of shape (rows, columns)
        The block of every cell, columns in the order of `statistics`; block 0 holds the cells that stand alone.
    weights : float array of shape (blocks,)
        What one shared row is worth: the length of all free columns that are constant in the block, to the exponent.
    """
    ids, weights, count = np.zeros((len(rows), len(statistics)), np.int32), [np.zeros(1)], 1
    for position, column in enumerate(statistics):
        cells = table.cells[rows, column]
        usable = np.flatnonzero(free[rows, column] & table.repeated[cells]).astype(np.int32)
        codes = cells[usable] - table.starts[column]
        members, starts = shared_rows(usable, paired(parent[usable], codes, len(table.columns[column].lengths)))
        del cells, usable, codes
        if not len(members):
            continue
        first = rows[members[starts]]
        length = table.lengths[table.cells[first]] * constant_columns(table.cells, rows[members], starts) * free[first]
        weights.append(length.sum(axis=1) ** exponent)
        ids[members, position] = count + spread(np.arange(len(starts)), starts, len(members))
        count += len(starts)
    return ids, np.concatenate(weights)


def _sorted_members(rows: Numbers, parent: Numbers, group: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """The rows that belong to a group, sorted by it, with their parent group; groups numbered from 0."""
    members = np.argsort(group, kind="stable")[np.count_nonzero(group < 0) :]
    group = group[members]
    return rows[members], parent[members], np.cumsum(np.diff(group, prepend=group[:1]) != 0, dtype=np.int32)


def _shared_first(
    table: Table, rows: Numbers, parent: Numbers, group: Numbers, constant: Bools, statistics: Orders
) -> list[int]:
    """The columns, those that groups of one parent share most first: inside a group any order is as good."""
    first = np.flatnonzero(np.diff(group, prepend=-1))
    scores = []
    for column in statistics:
        having = first[constant[first, column]]
        cells = table.cells[rows[having], column]
        distinct = len(np.unique(paired(parent[having], cells, len(table.lengths))))
        scores.append(table.lengths[cells].mean() ** 2 * (len(having) / distinct - 1) if distinct else 0.0)
    return statistics[np.argsort(-np.array(scores), kind="stable")].tolist()


def _place(column: int, rows: npt.NDArray[np.integer], order: Orders, depth: Orders, free: Bools) -> None:
    order[rows, depth[rows]] = column
    depth[rows] += 1
    free[rows, column] = False
