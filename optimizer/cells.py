"""The prompt's segments, row by row, from an encoded window."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt
from spark_llm.optimizer.columns import Column, Window


def cells(
    window: Window, rows: npt.NDArray[np.integer] | None = None, order: npt.NDArray[np.integer] | None = None
) -> list[tuple[str, ...]]:
    """The segments that follow the instruction.

    Parameters
    ----------
    window : Window
        The encoded rows.
    rows : int array of shape (r,), optional
        Which rows, in which order; all of them by default.
    order : int array of shape (r, m), optional
        Row i of it: the order of the m cells of row `rows[i]`, as indices into `window.cells`.

    Returns
    -------
    list of tuple of str
        One entry per wanted row. Every segment ends with a newline, but for the object's end.
    """
    rows = np.arange(window.rows) if rows is None else rows
    objects: list[tuple[str, ...]] = _objects(window, rows, order) if window.cells else [()] * len(rows)
    if window.head is None:
        return objects
    heads = window.head.pieces
    return [heads[code] + cell for code, cell in zip(window.head.codes[rows].tolist(), objects, strict=True)]


def _objects(
    window: Window, rows: npt.NDArray[np.integer], order: npt.NDArray[np.integer] | None
) -> list[tuple[str, ...]]:
    columns = window.cells
    if order is None:
        order = np.broadcast_to(np.arange(len(columns)), (len(rows), len(columns)))
    starts = np.cumsum([0, *(len(column.lengths) for column in columns)])
    ids = np.stack([column.codes[rows] + start for column, start in zip(columns, starts, strict=False)], axis=1)
    ids = np.take_along_axis(ids, order, axis=1)
    inner, last = _endings(columns, ",\n"), _endings(columns, window.end)
    body = [map(inner.__getitem__, ids[:, i].tolist()) for i in range(len(columns) - 1)]
    tail = map(last.__getitem__, ids[:, -1].tolist())
    return [tuple(chain.from_iterable(pieces)) for pieces in zip(*body, tail, strict=True)]


def _endings(columns: Sequence[Column], end: str) -> list[tuple[str, ...]]:
    """Every column's distinct cells, one list after the other, each with its ending."""
    return [(*pieces[:-1], pieces[-1] + end) for column in columns for pieces in column.pieces]
