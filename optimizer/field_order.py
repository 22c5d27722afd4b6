"""The one field order of a call, by which Spark sorts and partitions its rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from spark_llm.optimizer.statistics import ColumnStatistics


def rank_columns(length: npt.NDArray[np.float64], copies: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Columns by the text that they can share, `length² · (copies - 1)`, then by length; ties as given.

    Parameters
    ----------
    length : float array of shape (m,)
        Mean characters of a cell.
    copies : float array of shape (m,)
        Rows per distinct value.

    Notes
    -----
    The statistics score of the code of Liu et al. (MLSys 2025); their paper prints `length²` alone.
    """
    return np.lexsort((-length, -(length**2) * (copies - 1)))


FieldDependency = tuple[tuple[int, ...], tuple[int, ...]]
"""Columns, and those whose values they determine."""


def choose_field_order(
    statistics: Sequence[ColumnStatistics], dependencies: Sequence[FieldDependency] = ()
) -> list[int]:
    """The order of the columns that lets most text be shared.

    A column that those before it determine follows them at once: it is as constant as they are, so its text is shared
    wherever theirs is.

    Examples
    --------
    >>> key, text, name = (ColumnStatistics(n, d, 1000) for n, d in ((20, 50), (300, 1000), (15, 40)))
    >>> choose_field_order([text, key, name]), choose_field_order([text, key, name], [((1,), (0,))])
    ([1, 2, 0], [1, 0, 2])
    """
    length = np.array([column.length for column in statistics])
    copies = np.array([column.rows / column.distinct for column in statistics])
    order: list[int] = []
    for column in rank_columns(length, copies).tolist():
        if column not in order:
            order.append(column)
            order += _determined(order, dependencies, length)
    return order


def _determined(
    order: Sequence[int], dependencies: Sequence[FieldDependency], length: npt.NDArray[np.float64]
) -> list[int]:
    """The columns that those of `order` determine, longest first."""
    return sorted(closure(order, dependencies).difference(order), key=lambda i: -length[i])


def closure(columns: Sequence[int], dependencies: Sequence[FieldDependency]) -> set[int]:
    """The columns, and all that they determine."""
    known = set(columns)
    while grown := {i for left, right in dependencies if known.issuperset(left) for i in right} - known:
        known |= grown
    return known


def group_field_order(statistics: Sequence[ColumnStatistics], determines: Sequence[Sequence[int]]) -> list[int]:
    """The order in which a column comes with all that it determines, which share with it at no cost.

    Parameters
    ----------
    statistics : sequence of m ColumnStatistics
    determines : sequence of m sequences of int
        As `dependencies` finds them.

    Notes
    -----
    The determined columns lead, those of fewer values first: a beginning of them has never more values than the column
    that determines them, and often fewer.

    Examples
    --------
    >>> key, film, director = (ColumnStatistics(*s, 1000) for s in [(300, 1000), (80, 40), (20, 30)])
    >>> group_field_order([key, film, director], [[], [2], []])
    [2, 1, 0]
    """
    left, order = set(range(len(statistics))), list[int]()
    while left:
        best = max(sorted(left), key=lambda c: _score(statistics, c, left.intersection(determines[c])))
        taken = sorted(left.intersection(determines[best]) - {best}, key=lambda c: (statistics[c].distinct, c))
        order += [*taken, best]
        left -= {best, *taken}
    return order


def _score(statistics: Sequence[ColumnStatistics], column: int, taken: set[int]) -> tuple[float, float]:
    length = statistics[column].length + sum(statistics[c].length for c in taken if c != column)
    return length**2 * (statistics[column].rows / statistics[column].distinct - 1), length


def saving_field_order(statistics: Sequence[ColumnStatistics]) -> list[int]:
    """The columns by what a tree saves that has each value once, `length · (rows - distinct)`: best where they are
    independent and few levels deep.

    Examples
    --------
    >>> film, rating = ColumnStatistics(60, 600, 30_000), ColumnStatistics(12, 5, 30_000)
    >>> saving_field_order([rating, film]), choose_field_order([rating, film])
    ([1, 0], [0, 1])
    """
    return sorted(
        range(len(statistics)), key=lambda i: -statistics[i].length * (statistics[i].rows - statistics[i].distinct)
    )


def exchange_neighbours(order: Sequence[int], cost: Callable[[Sequence[int]], float], passes: int = 2) -> list[int]:
    """The order after exchanges of neighbours that lower its cost, tried from the last pair to the first.

    Examples
    --------
    >>> exchange_neighbours([2, 1, 0], lambda order: order[0] + order[1] / 10)
    [0, 1, 2]
    """
    best, least = list(order), cost(order)
    for _ in range(passes):
        before = least
        for i in reversed(range(len(best) - 1)):
            tried = [*best[:i], best[i + 1], best[i], *best[i + 2 :]]
            if (size := cost(tried)) < least:
                best, least = tried, size
        if least == before:
            break
    return best


def declared_field_order(columns: int, dependencies: Sequence[FieldDependency]) -> list[int]:
    """The order of `columns` columns of which nothing is known but what determines what.

    What others determine repeats more than what determines it, that more than a column of which nothing is known, and a
    key not at all.

    Examples
    --------
    >>> review_id, review, movie, title, info = range(5)
    >>> declared_field_order(5, [((review_id,), (1, 2, 3, 4)), ((movie,), (title, info))])
    [3, 4, 2, 1, 0]
    """
    determines = [closure([column], dependencies) - {column} for column in range(columns)]
    determined = {i for left, right in dependencies for i in right if not closure([i], dependencies).issuperset(left)}
    statistics = []
    for column, others in enumerate(determines):
        is_key = len(others) == columns - 1
        copies = 1.0 if is_key else 4.0 if column in determined and not others else 2.0 if others else 1.1
        statistics.append(ColumnStatistics(1.0, 1.0 / copies, 1.0))
    return group_field_order(statistics, [sorted(o) if len(o) < columns - 1 else [] for o in determines])
