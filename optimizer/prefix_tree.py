"""How large the prefix tree of all rows will be, from a sample of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from spark_llm.optimizer.columns import Column
from spark_llm.optimizer.groups import paired
from spark_llm.optimizer.statistics import estimate_distinct

Floats = npt.NDArray[np.float64]


def prefix_counts(
    columns: Sequence[Column],
    rows: float,
    distinct: Sequence[float] | None = None,
    determined: Sequence[bool] | None = None,
) -> Floats:
    """Expected distinct tuples of the first 1, 2, … columns: the nodes of the prefix tree, level by level.

    Parameters
    ----------
    columns : sequence of m Column
        A random sample of the distinct rows, columns in their order.
    rows : float
        Distinct rows in all.
    distinct : sequence of float, optional
        Distinct values of each column in all rows, where they were counted: no level has fewer than one of its
        columns, nor more than the product of all.
    determined : sequence of bool, optional
        Whether a column is determined by those before it, so that its level has no more tuples than theirs.

    Returns
    -------
    float array of shape (m,)
    """
    prefix, most, least = np.zeros(len(columns[0].codes), np.int32), 1.0, 1.0
    found: list[float] = []
    for level, column in enumerate(columns):
        keys = paired(prefix, column.codes, len(column.lengths))
        prefix = np.unique(keys, return_inverse=True)[1].astype(np.int32)
        count = estimate_distinct(prefix, rows)
        if distinct is not None:
            most, least = most * max(distinct[level], 1.0), max(least, distinct[level])
            count = min(max(count, least), most)
        if determined is not None and determined[level] and found:
            count = found[-1]
        found.append(min(count, rows))
    return np.maximum.accumulate(np.array(found))


def tree_size(columns: Sequence[Column], counts: Floats) -> float:
    """Length of all text in the tree: each node its cell, but siblings share their label."""
    mean = np.array([column.lengths[column.codes].mean() for column in columns])
    label = np.array([float(column.label) for column in columns])
    parents = np.concatenate([[1.0], counts[:-1]])
    return float((counts * mean - (counts - parents) * label).sum())
