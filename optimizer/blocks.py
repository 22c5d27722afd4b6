"""The greedy choice of blocks of rows, which the exact planner makes at every depth."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.int32]
Ids = npt.NDArray[np.integer]

_SLICE = 1 << 16
"""Rows at a time: a bound on memory."""


def choose_blocks(ids: Ids, weights: npt.NDArray[np.float64]) -> Numbers:
    """Give every row to one of its blocks: the greedy choice by `weight · (rows - 1)`, each row once.

    A block that all its remaining rows prefer can neither lose a row nor be overtaken, for scores only fall: the
    sequential greedy would take it too. So all such blocks are taken together, round by round.

    Parameters
    ----------
    ids : int array of shape (n, m)
        The blocks of each row, in one order of preference among equal scores that all rows have.
    weights : float array of shape (blocks,)
        What one shared row of a block is worth; 0 for a block that is none.

    Returns
    -------
    int array of shape (n,)
        Each row's block, -1 where it shares nothing.
    """
    group, alive = np.full(len(ids), -1, np.int32), np.arange(len(ids), dtype=np.int32)
    while len(alive):
        count = _counts(ids, alive, len(weights))
        score = weights * np.maximum(count - 1, 0)
        best = _preferred(ids, alive, score)
        shares = score[best] > 0
        taken = (np.bincount(best, minlength=len(weights)) == count)[best]
        group[alive[taken & shares]] = best[taken & shares]
        alive = alive[~taken & shares]
    return group


def _counts(ids: Ids, rows: Numbers, blocks: int) -> Ints:
    """Rows of each block."""
    count = np.zeros(blocks, np.int64)
    for part in _slices(rows):
        found = np.bincount(ids[part].ravel())
        count[: len(found)] += found
    return count


def _preferred(ids: Ids, rows: Numbers, score: npt.NDArray[np.float64]) -> Numbers:
    """Each row's block of the highest score, the first of equal ones."""
    best = np.empty(len(rows), np.int32)
    for start, part in zip(range(0, len(rows), _SLICE), _slices(rows), strict=True):
        own = ids[part]
        best[start : start + len(part)] = own[np.arange(len(part)), score[own].argmax(axis=1)]
    return best


def _slices(rows: Numbers) -> Iterator[Numbers]:
    return (rows[start : start + _SLICE] for start in range(0, len(rows), _SLICE))
