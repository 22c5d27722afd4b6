"""Soft functional dependencies, found in a sample."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from spark_llm.optimizer.columns import Column
from spark_llm.optimizer.groups import paired

ENOUGH = 20
"""Rows whose value of the determining column repeats; fewer are no evidence."""


def soft_dependencies(columns: Sequence[Column], strength: float = 0.95) -> list[list[int]]:
    """For each column of a sample, the other columns that it determines.

    Parameters
    ----------
    columns : sequence of m Column
        The encoded sample.
    strength : float
        Of the rows whose value repeats, the share that must agree with the most frequent partner of that value
        (1 - g3 of Kivinen and Mannila, "Approximate Inference of Functional Dependencies from Relations", 1995, on
        these rows alone: a value that stands once determines everything and shows nothing). A constant column is
        determined by all others, and listed.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from spark_llm.optimizer.columns import encode
    >>> data = [["a", "b"] * 20, ["x", "y"] * 20, [str(i) for i in range(40)]]
    >>> soft_dependencies([encode(pa.array(values), "", lambda text: text) for values in data])
    [[1], [0], []]
    """
    found: list[list[int]] = []
    for i, left in enumerate(columns):
        counts = np.bincount(left.codes, minlength=len(left.lengths))
        rows = np.flatnonzero(counts[left.codes] > 1)
        partners = [j for j in range(len(columns)) if j != i] if len(rows) >= ENOUGH else []
        found.append([j for j in partners if _agreeing(left, columns[j], rows) >= strength * len(rows)])
    return found


def _agreeing(left: Column, right: Column, rows: np.ndarray) -> int:
    """Rows that have the most frequent right value of their left value."""
    pairs, counts = np.unique(paired(left.codes[rows], right.codes[rows], len(right.lengths)), return_counts=True)
    most = np.zeros(len(left.lengths), np.int64)
    np.maximum.at(most, pairs // len(right.lengths), counts)
    return int(most.sum())
