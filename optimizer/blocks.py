"""The greedy choice of blocks of rows, which the exact planner makes at every depth."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def choose_blocks(ids: npt.NDArray[np.int64], weights: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
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
    group, alive = np.full(len(ids), -1, np.int64), np.arange(len(ids))
    while len(alive):
        count = np.bincount(ids[alive].ravel(), minlength=len(weights))
        score = weights * np.maximum(count - 1, 0)
        best = np.take_along_axis(ids[alive], score[ids[alive]].argmax(axis=1)[:, None], axis=1)[:, 0]
        taken = np.bincount(best, minlength=len(weights)) == count
        group[alive] = np.where(taken[best] & (score[best] > 0), best, -1)
        alive = alive[~taken[best] & (score[best] > 0)]
    return group
