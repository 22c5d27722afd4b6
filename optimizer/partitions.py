"""By how many leading fields rows are partitioned, so that prefix groups stay whole and tasks stay even."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from spark_llm.optimizer.columns import Column
from spark_llm.optimizer.groups import paired

UNEVEN = 0.15
"""Of a task's fair share, what its largest group may add."""


def partition_fields(columns: Sequence[Column], tasks: int) -> int:
    """The number of leading columns whose values are to stay in one partition.

    Spark puts rows with equal keys of a range partitioning into one partition, so a prefix group by these columns is
    asked on one host. Fewer columns keep larger groups whole; but a group must not be so large that the task that
    gets it is late.

    Parameters
    ----------
    columns : sequence of m Column
        The encoded sample, columns in the planned order.
    tasks : int
        Partitions.

    Returns
    -------
    int
        From 1 to m: the fewest columns whose largest group has at most 15 % of a task's fair share of the text.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from spark_llm.optimizer.columns import encode
    >>> label, film = ["a", "b"] * 50, [str(i % 25) for i in range(100)]
    >>> columns = [encode(pa.array(values), "", lambda text: text) for values in (label, film)]
    >>> partition_fields(columns, tasks=2), partition_fields(columns, tasks=1)
    (2, 2)
    """
    weight = sum((column.lengths[column.codes] for column in columns), np.zeros(len(columns[0].codes)))
    prefix = np.zeros(len(weight), np.int32)
    for number, column in enumerate(columns, 1):
        keys = paired(prefix, column.codes, len(column.lengths))
        prefix = np.unique(keys, return_inverse=True)[1].astype(np.int32)
        if np.bincount(prefix, weight).max() <= UNEVEN * weight.sum() / max(tasks, 1):
            return number
    return len(columns)
