"""The exact plan of a window: each row's own field order, and the order of the rows.

Greedy group recursion (GGR; Liu et al., "Optimizing LLM Queries in Relational Data Analytics Workloads", MLSys 2025,
algorithm 1) on integer codes, with three differences. A group takes every column that is constant in it, so functional
dependencies need not be declared, and such columns count in the score. All groups of one depth are planned at once, in
vectorized rounds that give exactly the sequential greedy choice. And where that leaves much repeated text unshared, as
in retrieved contexts, rows are nested from the bottom up instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from operator import attrgetter

import numpy as np
from spark_llm.optimizer.arrangement import Blocks, Bools, Numbers, Orders, arrange, number_cells
from spark_llm.optimizer.columns import Column
from spark_llm.optimizer.field_order import rank_columns
from spark_llm.optimizer.greedy import greedy_orders, group_pinned
from spark_llm.optimizer.groups import paired
from spark_llm.optimizer.nesting import nest

_EXPONENTS = (2.0, 1.0)
"""Of the length in a block's score: 2 is better on most tables, 1 on some (notes in docs/planner.md)."""

NESTED_ROWS = 1 << 15
"""Larger windows are not nested: it takes a Python step per row and join."""

GREEDY_ROWS = 1 << 16
"""So many rows are planned together, if a window has more; what is lost is a few groups at the borders."""

_ROOM = 0.9
"""Of the text that repeats; from there on nesting has not been seen to gain."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A plan of n rows with m columns.

    Attributes
    ----------
    rows : int32 array of shape (n,)
        The rows in the order in which they are to be asked.
    order : unsigned int array of shape (n, m)
        Row i of it: the field order of row `rows[i]`.
    hits : float
        Characters that an unbounded prefix cache serves, in its whole blocks, behind what stands before the columns.
    """

    rows: Numbers
    order: Orders
    hits: float


def plan_window(
    columns: Sequence[Column], order: Sequence[int], pinned: int = 0, blocks: Blocks | None = None
) -> Layout:
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
    blocks : Blocks, optional
        The cache that will be asked: what two rows share counts after rounding to its blocks. By default to the letter,
        as the native engine's does.

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
    given = np.array(order, np.min_scalar_type(len(order)))
    blocks = blocks or Blocks()
    found = max(_layouts(columns, given, pinned, blocks), key=_hits)
    if len(given) > pinned + 1 and _leaves_room(columns, found.hits):
        found = max(found, _arranged(columns, _nested(columns, given, pinned), blocks), key=_hits)
    return found


_hits = attrgetter("hits")


def _arranged(columns: Sequence[Column], orders: Orders, blocks: Blocks) -> Layout:
    """The rows sorted under their field orders, shape (n, m), or (m,) for one of all."""
    n = len(columns[0].codes)
    hits, rows = arrange(columns, np.broadcast_to(orders, (n, len(columns))), blocks)
    return Layout(rows, orders[rows] if orders.ndim == 2 else np.broadcast_to(orders, (n, len(columns))), hits)


def _layouts(columns: Sequence[Column], given: Orders, pinned: int, blocks: Blocks) -> Iterator[Layout]:
    """The candidates: of equal ones the first is taken."""
    n, m = len(columns[0].codes), len(columns)
    yield _arranged(columns, given, blocks)
    if n < 2 or m < pinned + 2:
        return
    statistics = _by_statistics(columns, given, pinned)
    by_statistics = _arranged(columns, statistics, blocks)
    yield by_statistics
    if n > GREEDY_ROWS:
        yield _in_pieces(columns, by_statistics.rows.copy(), statistics, pinned, blocks)
        return
    for scored, exponent in product(dict.fromkeys((Blocks(), blocks)), _EXPONENTS):  # a short cell fills no block alone
        yield _arranged(columns, greedy_orders(columns, statistics, pinned, exponent, scored), blocks)


def _in_pieces(columns: Sequence[Column], rows: Numbers, statistics: Orders, pinned: int, blocks: Blocks) -> Layout:
    """The plans of pieces of the sorted rows, one after the other: a bound on memory."""
    order, hits = np.empty((len(rows), len(columns)), statistics.dtype), 0.0
    for start in range(0, len(rows), GREEDY_ROWS):
        part = slice(start, start + GREEDY_ROWS)
        piece = [column.part(rows[part]) for column in columns]
        layout = plan_window(piece, statistics.tolist(), pinned, blocks)
        rows[part], order[part], hits = rows[part][layout.rows], layout.order, hits + layout.hits
    return Layout(rows, order, hits)


def _leaves_room(columns: Sequence[Column], hits: float) -> bool:
    """Whether much repeated text is not shared yet, in a table that can be nested in bounded time."""
    if len(columns[0].codes) > NESTED_ROWS:
        return False
    repeated = sum(int(c.lengths[c.codes].sum()) - int(c.lengths[_used(c)].sum()) for c in columns)
    return hits < _ROOM * repeated


def _used(column: Column) -> Bools:
    """Which values some row has; a part of a window need not have all."""
    return np.bincount(column.codes, minlength=len(column.lengths)) > 0


def _nested(columns: Sequence[Column], given: Orders, pinned: int) -> Orders:
    """Every row's field order, from the rows that share most upwards."""
    statistics = _by_statistics(columns, given, pinned)
    rows = np.lexsort([columns[column].codes for column in reversed(statistics)])
    numbers, lengths = number_cells(columns)
    cells = numbers[statistics[pinned:]].T[rows]
    groups = group_pinned(columns, given[:pinned])[rows]
    distinct, items = np.unique(paired(groups[:, None], cells, len(lengths)), return_inverse=True)
    common = nest(items.reshape(cells.shape), lengths[distinct % len(lengths)])
    order = np.tile(statistics, (len(rows), 1))
    order[rows, pinned:] = statistics[pinned:][np.argsort(-common, axis=1, kind="stable")]
    return order


def _by_statistics(columns: Sequence[Column], given: Orders, pinned: int) -> Orders:
    """The columns that are not pinned by the window's own statistics; ties as given."""
    order = given[pinned:]
    chosen = [columns[column] for column in order]
    mean = np.array([column.lengths[column.codes].mean() for column in chosen])
    copies = np.array([len(column.codes) / np.count_nonzero(_used(column)) for column in chosen])
    return np.concatenate([given[:pinned], order[rank_columns(mean, copies)]])
