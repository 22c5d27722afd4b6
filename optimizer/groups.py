"""Groups of rows as integer arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from spark_llm.optimizer.columns import Codes, Column

Ints = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.int32]


def dense(keys: npt.NDArray[np.int32]) -> Numbers:
    """Number the distinct rows of a key matrix."""
    group = np.zeros(len(keys), np.int64)
    for column in keys.T:
        group = np.unique(group * (np.int64(column.max(initial=0)) + 1) + column, return_inverse=True)[1]
    return group.astype(np.int32)


def paired(groups: Codes, codes: Codes, distinct: int) -> npt.NDArray[np.signedinteger]:
    """One number per pair of group and code, codes being below `distinct`."""
    fits = (int(groups.max(initial=0)) + 1) * distinct < 2**31
    wide: Codes = groups.astype(np.int32 if fits else np.int64, copy=False)
    return wide * distinct + codes


def shared_rows(rows: Numbers, keys: npt.NDArray[np.signedinteger]) -> tuple[Numbers, Ints]:
    """The rows whose key occurs more than once, sorted by key, and where each key starts."""
    by_key = np.argsort(keys, kind="stable")
    keys = keys[by_key]
    differs = np.ones(len(keys) + 1, bool)
    np.not_equal(keys[1:], keys[:-1], out=differs[1:-1])
    shared = ~(differs[:-1] & differs[1:])
    return rows[by_key[shared]], np.flatnonzero(differs[:-1][shared])


def spread(values: npt.NDArray, starts: Ints, rows: int) -> npt.NDArray:
    """One value per group as one value per row, for rows sorted by group."""
    return np.repeat(values, np.diff(starts, append=rows), axis=0)


def constant_columns(columns: Sequence[Column], rows: Numbers, starts: Ints) -> npt.NDArray[np.bool_]:
    """For rows in order of their group: which columns have one value in a group. Shape (groups, columns)."""
    constant = np.empty((len(starts), len(columns)), bool)
    last = np.append(starts[1:], len(rows)) - 1
    changes = np.zeros(len(rows) + 1, np.int32)
    for number, column in enumerate(columns):
        codes = column.codes[rows]
        np.cumsum(codes[1:] != codes[:-1], dtype=np.int32, out=changes[1:-1])
        constant[:, number] = changes[last] == changes[starts]
    return constant
