"""OPHR, the optimal layout by exhaustive recursion (Liu et al., MLSys 2025, section 4.1): the oracle on tiny tables."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

Rows = tuple[tuple[str, ...], ...]


def best_hits(columns: Sequence[Sequence[str]]) -> float:
    """The most characters that any choice of row and field orders shares, whole cells only.

    `columns` hold rendered cells; equal cells of different columns are different. Exponential: up to about 7 x 3.
    """
    named = [[f"{i}\0{cell}" for cell in column] for i, column in enumerate(columns)]
    return _best(tuple(sorted(zip(*named, strict=True))))


@cache
def _best(rows: Rows) -> float:
    if len(rows) < 2 or not rows[0]:
        return 0.0
    choices = [_split(rows, c, value) for c in range(len(rows[0])) for value in sorted({row[c] for row in rows})]
    return max(choices, default=0.0)


def _split(rows: Rows, column: int, value: str) -> float:
    group = tuple(row[:column] + row[column + 1 :] for row in rows if row[column] == value)
    rest = tuple(row for row in rows if row[column] != value)
    length = len(value.split("\0", 1)[1])
    return length * (len(group) - 1) + _best(group) + _best(rest)
