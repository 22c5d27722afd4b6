"""The one field order of a call, by which Spark sorts and partitions its rows."""

from __future__ import annotations

from collections.abc import Sequence

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
    known = set(order)
    while grown := {i for left, right in dependencies if known.issuperset(left) for i in right} - known:
        known |= grown
    return sorted(known.difference(order), key=lambda i: -length[i])
