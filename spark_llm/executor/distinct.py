"""Distinct argument tuples of a window, on the bytes that the model would see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True, slots=True)
class Distinct:
    """`first[t]` is the row where tuple `t` first occurs; `tuple_of[r]` is the tuple of row `r`. Both int64."""

    first: np.ndarray
    tuple_of: np.ndarray


def distinct_tuples(columns: Sequence[pa.Array], rows: int) -> Distinct:
    """Number the distinct tuples of `columns` (string arrays of equal length `rows`) by first occurrence.

    NULL equals NULL and differs from every string. No column at all means one tuple for all rows.
    """
    codes = np.zeros(rows, dtype=np.int64)
    for column in columns:
        codes = _renumber(codes * (len(column) + 1) + _codes(column))
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    by_occurrence = np.argsort(first, kind="stable")
    rank = np.empty_like(by_occurrence)
    rank[by_occurrence] = np.arange(len(by_occurrence))
    return Distinct(first[by_occurrence].astype(np.int64), rank[inverse.reshape(-1)].astype(np.int64))


def _codes(column: pa.Array) -> np.ndarray:
    """Codes 0..n-1 of the values, n for NULL."""
    indices = pc.dictionary_encode(column).indices
    return np.asarray(pc.fill_null(indices, len(column)), dtype=np.int64)


def _renumber(codes: np.ndarray) -> np.ndarray:
    """Dense codes, so that the next column's product cannot overflow."""
    return np.unique(codes, return_inverse=True)[1].reshape(-1)


def is_utf8(column: pa.Array) -> np.ndarray:
    """Which values are valid UTF-8 (NULL is). Spark's strings may hold any bytes."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return np.fromiter(map(_decodes, column.cast(pa.binary()).to_pylist()), dtype=bool, count=len(column))
    return np.ones(len(column), dtype=bool)


def _decodes(value: bytes | None) -> bool:
    try:
        (value or b"").decode()
    except UnicodeDecodeError:
        return False
    return True
