"""Statistics of a call's columns from a bounded sample of its real arguments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from spark_llm.optimizer.columns import Column


@dataclass(frozen=True, slots=True)
class ColumnStatistics:
    """`length`: mean characters of a cell; `distinct`: expected number of distinct values in all `rows`."""

    length: float
    distinct: float
    rows: float


def column_statistics(
    columns: Sequence[Column], rows: float, known: Sequence[float] | None = None
) -> list[ColumnStatistics]:
    """Statistics of each column of a sample, extrapolated.

    Parameters
    ----------
    columns : sequence of Column
        The encoded sample, at least one row.
    rows : float
        How many rows the whole input has; the sample's own number where that is unknown or smaller.
    known : sequence of float, optional
        Distinct values of each column in the whole input, where they were counted.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from spark_llm.optimizer.columns import encode
    >>> label = encode(pa.array(["a", "b", "a", "b"]), "", lambda text: text)
    >>> column_statistics([label], rows=1000)
    [ColumnStatistics(length=3.0, distinct=2.0, rows=1000)]
    """
    rows = max(rows, len(columns[0].codes)) if columns else rows
    found = [estimate_distinct(column.codes, rows) for column in columns] if known is None else known
    return [
        ColumnStatistics(float(c.lengths[c.codes].mean()), min(max(count, 1.0), rows), rows)
        for c, count in zip(columns, found, strict=True)
    ]


def estimate_distinct(codes: npt.NDArray[np.integer], rows: float) -> float:
    """Expected distinct values among `rows` rows, of which `codes` is a random sample.

    The first-order jackknife "Duj1" of Haas et al., "Sampling-Based Estimation of the Number of Distinct Values of an
    Attribute", VLDB 1995: exact for a whole table, `rows` for a key.
    """
    counts = np.unique(codes, return_counts=True)[1]
    sampled, once = len(codes), np.count_nonzero(counts == 1)
    unseen = max(0.0, 1 - sampled / max(rows, sampled))
    return float(min(len(counts) / max(1 - unseen * once / sampled, 1e-12), max(rows, sampled)))
