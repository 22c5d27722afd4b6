"""How large the prefix tree of all rows will be, from a sample of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Nodes:
    """By level of a prefix tree, the mean length of a node's cell, and what it shares with the sibling before it."""

    lengths: Floats
    beginnings: Floats


def sampled_nodes(columns: Sequence[Column]) -> Nodes:
    """The nodes of the tree that a sample makes.

    Where none has a sibling there, it would share what any two cells of the column share.
    """
    rows = np.lexsort([column.codes for column in reversed(columns)])
    equal, lengths, beginnings = np.ones(len(rows) - 1, bool), list[float](), list[float]()
    for column in columns:
        codes = column.codes[rows]
        upper, lower = codes[:-1], codes[1:]
        siblings = equal & (upper != lower)
        equal &= upper == lower
        lengths.append(float(column.lengths[codes[np.append(True, ~equal)]].mean()))
        if siblings.any():
            upper, lower = upper[siblings], lower[siblings]
        else:
            upper = np.arange(1, len(column.lengths))
            lower = np.zeros_like(upper)
        beginnings.append(float(column.shared(upper, lower).mean()) if len(upper) else 0.0)
    return Nodes(np.array(lengths), np.array(beginnings))


def tree_size(columns: Sequence[Column], counts: Floats, nodes: Nodes | None = None) -> float:
    """Length of all text in the tree: each node its cell, but siblings share their beginning.

    Parameters
    ----------
    columns : sequence of m Column
    counts : float array of shape (m,)
        Nodes of each level.
    nodes : Nodes, optional
        By default each is as long as a cell is on the mean, and shares its label.
    """
    if nodes is None:
        mean = [float(column.lengths[column.codes].mean()) for column in columns]
        nodes = Nodes(np.array(mean), np.array([float(column.label) for column in columns]))
    parents = np.concatenate([[1.0], counts[:-1]])
    return float((counts * nodes.lengths - (counts - parents) * nodes.beginnings).sum())
