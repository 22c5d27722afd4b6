"""The exact plan of a window: each row's own field order, and the order of the rows.

Greedy group recursion (GGR; Liu et al., "Optimizing LLM Queries in Relational Data Analytics Workloads", MLSys 2025,
algorithm 1) on integer codes, with two differences. A group takes every column that is constant in it, so functional
dependencies need not be declared, and such columns count in the score. And all groups of one depth are planned at
once, in vectorized rounds that give exactly the sequential greedy choice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from spark_llm.optimizer.blocks import choose_blocks
from spark_llm.optimizer.columns import Column
from spark_llm.optimizer.field_order import rank_columns
from spark_llm.optimizer.groups import constant_columns, dense, shared_rows, spread

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_EXPONENTS = (2.0, 1.0)
"""Of the length in a block's score: 2 is better on most tables, 1 on some (notes in docs/planner.md)."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A plan of n rows with m columns.

    Attributes
    ----------
    rows : int array of shape (n,)
        The rows in the order in which they are to be asked.
    order : int array of shape (n, m)
        Row i of it: the field order of row `rows[i]`.
    hits : float
        Characters that an unbounded prefix cache serves.
    """

    rows: Ints
    order: Ints
    hits: float


@dataclass(frozen=True, slots=True)
class _Table:
    """The window as one matrix of cell numbers: equal numbers are equal cells, across all columns.

    `cells` (n, m); `lengths` (k,) by cell number; the cells of a column are numbered from its `starts` (m,) on.
    """

    columns: Sequence[Column]
    starts: Ints
    cells: Ints
    lengths: Floats


def plan_window(columns: Sequence[Column], order: Sequence[int], pinned: int = 0) -> Layout:
    """Choose row order and field orders so that neighbours share long beginnings.

    Parameters
    ----------
    columns : sequence of m Column
        The encoded columns of n rows. Text before the object (`Window.head`) is given as a first, pinned column.
    order : sequence of int
        The call's global order of the columns; it leads where it is as good as another, so that windows share with
        each other.
    pinned : int
        So many columns of `order` lead in every row, in this order; m keeps the order of all and plans the rows alone.

    Returns
    -------
    Layout
        Never worse in `hits` than `order` with rows sorted by it, nor than the window's own statistics order.

    Raises
    ------
    ValueError
        No column, or `order` does not hold each column once.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from spark_llm.optimizer.columns import encode
    >>> data = {"id": ["1", "2", "3"], "text": ["long text", "other", "long text"]}
    >>> columns = [encode(pa.array(values), f"{name}: ", lambda text: text) for name, values in data.items()]
    >>> layout = plan_window(columns, order=[0, 1])
    >>> layout.rows.tolist(), layout.order.tolist()
    ([0, 2, 1], [[1, 0], [1, 0], [1, 0]])
    """
    if not columns or sorted(order) != list(range(len(columns))):
        msg = f"a plan needs at least one column, and each of the {len(columns)} once in its order, got {list(order)}"
        raise ValueError(msg)
    table = _table(columns)
    return max((_arrange(table, o) for o in _candidates(table, np.array(order), pinned)), key=lambda one: one.hits)


def _candidates(table: _Table, given: Ints, pinned: int) -> Iterator[Ints]:
    """Field orders by row, shape (n, m): of equal ones the first is taken."""
    n, m = table.cells.shape
    yield np.tile(given, (n, 1))
    if n < 2 or m < pinned + 2:
        return
    statistics = np.concatenate([given[:pinned], _by_statistics(table, given[pinned:])])
    yield np.tile(statistics, (n, 1))
    for exponent in _EXPONENTS:
        yield _greedy(table, statistics, pinned, exponent)


def _table(columns: Sequence[Column]) -> _Table:
    starts = np.cumsum([0, *(len(column.lengths) for column in columns[:-1])])
    cells = np.stack([column.codes + start for column, start in zip(columns, starts, strict=True)], axis=1)
    return _Table(columns, starts, cells, np.concatenate([column.lengths for column in columns]))


def _arrange(table: _Table, order: Ints) -> Layout:
    """Sort the rows by their cells as laid out, and count the characters shared with the row before.

    Rows sorted so are neighbours of the row with which they share most, so the count is that of a trie.
    """
    laid = np.take_along_axis(table.cells, order, axis=1)
    rows = np.lexsort(laid.T[::-1])
    laid, order = laid[rows], order[rows]
    equal = np.logical_and.accumulate(laid[1:] == laid[:-1], axis=1)
    whole = float((table.lengths[laid[1:]] * equal).sum())
    return Layout(rows, order, whole + _partial(table, laid, order, equal.sum(axis=1)))


def _partial(table: _Table, laid: Ints, order: Ints, depth: Ints) -> float:
    """Characters shared by the first cells that differ, as far as their prefixes reach."""
    above = np.flatnonzero(depth < laid.shape[1])
    position = depth[above]
    leading, same = order[above, position], order[above, position] == order[above + 1, position]
    shared = 0.0
    for number, (column, start) in enumerate(zip(table.columns, table.starts, strict=True)):
        here = same & (leading == number)
        left, right = (laid[above[here] + i, position[here]] - start for i in (0, 1))
        common = np.logical_and.accumulate(column.prefixes[left] == column.prefixes[right], axis=1)
        characters = column.label + (column.steps[left] * common).sum(axis=1)
        shared += float(np.minimum(characters, column.lengths[left]).sum())
    return shared


def _by_statistics(table: _Table, order: Ints) -> Ints:
    """Columns of `order` by the window's own statistics; ties as in `order`."""
    distinct = np.array([len(np.unique(table.cells[:, column])) for column in order])
    return order[rank_columns(table.lengths[table.cells].mean(axis=0)[order], len(table.cells) / distinct)]


def _greedy(table: _Table, statistics: Ints, pinned: int, exponent: float) -> Ints:
    """Every row's field order, depth by depth; groups of rows with equal beginnings are split further."""
    n, m = table.cells.shape
    order, depth, free = np.empty((n, m), np.int64), np.zeros(n, np.int64), np.ones((n, m), bool)
    rows = np.arange(n)
    for column in statistics[:pinned]:
        _place(column, rows, order, depth, free)
    parent = dense(table.cells[:, statistics[:pinned]])
    while len(rows):
        ids, weights = _blocks(table, rows, parent, free, statistics, exponent)
        rows, parent, group = _sorted_members(rows, parent, choose_blocks(ids, weights))
        if not len(rows):
            break
        starts = np.flatnonzero(np.diff(group, prepend=-1))
        constant = spread(constant_columns(table.cells[rows], starts), starts, len(rows)) & free[rows]
        for column in _shared_first(table, rows, parent, group, constant, statistics):
            _place(column, rows[constant[:, column]], order, depth, free)
        open_rows = (np.bincount(group)[group] > 2) & free[rows].any(axis=1)
        rows, parent = rows[open_rows], group[open_rows]
    for column in statistics:
        _place(column, np.flatnonzero(free[:, column]), order, depth, free)
    return order


def _blocks(
    table: _Table, rows: Ints, parent: Ints, free: Bools, statistics: Ints, exponent: float
) -> tuple[Ints, Floats]:
    """Rows of a group that agree in a free column form a block.

    Returns
    -------
    ids : int array of shape (rows, columns)
        The block of every cell, columns in the order of `statistics`; block 0 holds the cells that stand alone.
    weights : float array of shape (blocks,)
        What one shared row is worth: the length of all free columns that are constant in the block, to the exponent.
    """
    ids, weights, count = np.zeros((len(rows), len(statistics)), np.int64), [np.zeros(1)], 1
    for position, column in enumerate(statistics):
        usable = np.flatnonzero(free[rows, column])
        members, starts = shared_rows(usable, parent[usable] * len(table.lengths) + table.cells[rows[usable], column])
        if not len(members):
            continue
        first = rows[members[starts]]
        length = table.lengths[table.cells[first]] * constant_columns(table.cells[rows[members]], starts) * free[first]
        weights.append(length.sum(axis=1) ** exponent)
        ids[members, position] = count + spread(np.arange(len(starts)), starts, len(members))
        count += len(starts)
    return ids, np.concatenate(weights)


def _sorted_members(rows: Ints, parent: Ints, group: Ints) -> tuple[Ints, Ints, Ints]:
    """The rows that belong to a group, sorted by it, with their parent group; groups numbered from 0."""
    members = np.argsort(group, kind="stable")[np.count_nonzero(group < 0) :]
    return rows[members], parent[members], dense(group[members, None])


def _shared_first(table: _Table, rows: Ints, parent: Ints, group: Ints, constant: Bools, statistics: Ints) -> list[int]:
    """The columns, those that groups of one parent share most first: inside a group any order is as good."""
    first = np.flatnonzero(np.diff(group, prepend=-1))
    scores = []
    for column in statistics:
        having = first[constant[first, column]]
        cells = table.cells[rows[having], column]
        distinct = len(np.unique(parent[having] * len(table.lengths) + cells))
        scores.append(table.lengths[cells].mean() ** 2 * (len(having) / distinct - 1) if distinct else 0.0)
    return statistics[np.argsort(-np.array(scores), kind="stable")].tolist()


def _place(column: int, rows: Ints, order: Ints, depth: Ints, free: Bools) -> None:
    order[rows, depth[rows]] = column
    depth[rows] += 1
    free[rows, column] = False
