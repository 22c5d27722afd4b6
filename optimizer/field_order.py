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


def choose_field_order(statistics: Sequence[ColumnStatistics]) -> list[int]:
    """The order of the columns that lets most text be shared.

    Examples
    --------
    >>> choose_field_order([ColumnStatistics(300, 1000, 1000), ColumnStatistics(80, 20, 1000)])
    [1, 0]
    """
    length = np.array([column.length for column in statistics])
    copies = np.array([column.rows / column.distinct for column in statistics])
    return rank_columns(length, copies).tolist()
