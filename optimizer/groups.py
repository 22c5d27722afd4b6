"""Groups of rows as integer arrays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def dense(keys: Ints) -> Ints:
    """Number the distinct rows of a key matrix."""
    group = np.zeros(len(keys), np.int64)
    for column in keys.T:
        group = np.unique(group * (column.max(initial=0) + 1) + column, return_inverse=True)[1]
    return group


def shared_rows(rows: Ints, keys: Ints) -> tuple[Ints, Ints]:
    """The rows whose key occurs more than once, sorted by key, and where each key starts."""
    by_key = np.argsort(keys, kind="stable")
    differs = np.diff(keys[by_key], prepend=-1, append=-1) != 0
    members = by_key[~(differs[:-1] & differs[1:])]
    return rows[members], np.flatnonzero(np.diff(keys[members], prepend=-1))


def spread(values: npt.NDArray, starts: Ints, rows: int) -> npt.NDArray:
    """One value per group as one value per row, for rows sorted by group."""
    return np.repeat(values, np.diff(starts, append=rows), axis=0)


def constant_columns(cells: Ints, starts: Ints) -> npt.NDArray[np.bool_]:
    """For rows sorted by group: which columns have one value in a group. Shape (groups, columns)."""
    changes = np.zeros((len(cells) + 1, cells.shape[1]), np.int32)
    np.cumsum(cells[1:] != cells[:-1], axis=0, out=changes[1:-1])
    return changes[np.append(starts[1:], len(cells)) - 1] == changes[starts]
