"""Statistics of a call's columns from a bounded sample of its real arguments."""

from __future__ import annotations

import math
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

    The smaller of two estimators of Haas et al., "Sampling-Based Estimation of the Number of Distinct Values of an
    Attribute", VLDB 1995: the second-order jackknife "Duj2", too high where few values have most rows, and Shlosser's,
    too high where the sample is small. Exact for a whole table, `rows` for a key.
    """
    counts = np.unique(codes, return_counts=True)[1].astype(np.float64)
    sampled, found, once = len(codes), len(counts), np.count_nonzero(counts == 1)
    seen = min(sampled / max(rows, 1), 1.0)
    unseen = 1 - seen
    if not unseen or not once:
        return float(found)
    scale = 1 / (1 - unseen * once / sampled)
    uneven = max(found * scale * (float((counts * (counts - 1)).sum()) / sampled**2 + 1 / rows) - 1, 0.0)
    duj2 = scale * (found - once * unseen * math.log(unseen) * uneven / seen)
    missed = float((unseen**counts).sum() / (counts * seen * unseen ** (counts - 1)).sum())
    return min(duj2, found + once * missed, float(rows))
