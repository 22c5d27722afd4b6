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
from spark_llm.optimizer.groups import constant_columns, dense, paired, shared_rows, spread

Ints = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.int32]
Orders = npt.NDArray[np.unsignedinteger]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_SLICE = 1 << 14
"""Rows at a time where each needs a few hundred bytes."""

_EXPONENTS = (2.0, 1.0)
"""Of the length in a block's score: 2 is better on most tables, 1 on some (notes in docs/planner.md)."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A plan of n rows with m columns.

    Attributes
    ----------
    rows : int array of shape (n,)
        The rows in the order in which they are to be asked.
    order : unsigned int array of shape (n, m)
        Row i of it: the field order of row `rows[i]`.
    hits : float
        Characters that an unbounded prefix cache serves.
    """

    rows: Ints
    order: Orders
    hits: float


@dataclass(frozen=True, slots=True)
class _Table:
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
    hits, rows, orders = _best(table, _candidates(table, np.array(order, np.min_scalar_type(len(order))), pinned))
    return Layout(rows, orders[rows], hits)


def _best(table: _Table, candidates: Iterator[Orders]) -> tuple[float, Ints, Orders]:
    """Hits, sorted rows and orders by row of the best candidate; no more than two are held at a time."""
    return max(((*_arrange(table, orders), orders) for orders in candidates), key=lambda found: found[0])


def _candidates(table: _Table, given: Orders, pinned: int) -> Iterator[Orders]:
    """Field orders by row, shape (n, m): of equal ones the first is taken."""
    n, m = table.cells.shape
    yield np.broadcast_to(given, (n, m))
    if n < 2 or m < pinned + 2:
        return
    statistics = np.concatenate([given[:pinned], _by_statistics(table, given[pinned:])])
    yield np.broadcast_to(statistics, (n, m))
    for exponent in _EXPONENTS:
        yield _greedy(table, statistics, pinned, exponent)


def _table(columns: Sequence[Column]) -> _Table:
    starts = np.cumsum([0, *(len(column.lengths) for column in columns[:-1])], dtype=np.int32)
    cells = np.empty((len(columns), len(columns[0].codes)), np.int32)
    for numbers, column, start in zip(cells, columns, starts, strict=True):
        np.add(column.codes, start, out=numbers)
    lengths = np.concatenate([column.lengths for column in columns])
    repeated = np.concatenate([np.bincount(column.codes, minlength=len(column.lengths)) > 1 for column in columns])
    return _Table(columns, starts, cells.T, lengths, repeated)


def _arrange(table: _Table, order: Orders) -> tuple[float, Ints]:
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


def _partial(table: _Table, rows: Ints, order: Orders, depth: Orders) -> float:
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


def _by_statistics(table: _Table, order: Orders) -> Orders:
    """Columns of `order` by the window's own statistics; ties as in `order`."""
    distinct = np.array([len(table.columns[column].lengths) for column in order])
    mean = np.array([table.lengths[table.cells[:, column]].mean() for column in order])
    return order[rank_columns(mean, len(table.cells) / distinct)]


def _greedy(table: _Table, statistics: Orders, pinned: int, exponent: float) -> Orders:
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
    table: _Table, rows: Numbers, parent: Numbers, free: Bools, statistics: Orders, exponent: float
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
    table: _Table, rows: Numbers, parent: Numbers, group: Numbers, constant: Bools, statistics: Orders
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
