"""The order of the elements of arrays that have none of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from heapq import nlargest

import numpy as np
import numpy.typing as npt
from spark_llm.optimizer.blocks import choose_blocks
from spark_llm.optimizer.nesting import nest

Numbers = npt.NDArray[np.integer]

WIDTH = 64
"""So many shared elements of an array are placed, those worth most: a bound on memory for long arrays."""

ARRAYS = 1 << 15
"""More arrays are not nested: it takes a Python step per array and join."""


def order_elements(arrays: Sequence[Sequence[str]]) -> list[list[str]]:
    """Order the elements of each array so that many arrays begin alike.

    The better of two: arrays nested by what they share (`nesting.py`, up to ARRAYS of them), and greedy on sets: the
    element worth most, `length · (arrays that hold it - 1)`, leads in all arrays that hold it; then the same among
    these without it, and among the others. What is left at the end stands longest first. Equal elements of an array
    stay together.

    Parameters
    ----------
    arrays : sequence of sequences of str
        Rendered elements, none empty; equal multisets give equal orders.

    Examples
    --------
    >>> order_elements([["a", "common"], ["b", "common"], ["longest", "c"]])
    [['common', 'a'], ['common', 'b'], ['longest', 'c']]
    """
    multisets = [Counter(array) for array in arrays]
    holders = Counter(element for multiset in multisets for element in multiset)
    names = sorted(element for element, count in holders.items() if count > 1)
    number = {name: i for i, name in enumerate(names)}
    lengths = np.array([len(name) for name in names], dtype=np.int32)
    worth = {name: len(name) * (holders[name] - 1) for name in names}
    shared = [nlargest(WIDTH, multiset.keys() & number.keys(), key=lambda e: (worth[e], e)) for multiset in multisets]
    placed = _best(_padded([sorted(number[element] for element in array) for array in shared]), lengths)
    return [
        _expand([names[i] for i in row if i >= 0], multiset)
        for row, multiset in zip(placed.tolist(), multisets, strict=True)
    ]


def _expand(leading: list[str], multiset: Counter[str]) -> list[str]:
    rest = sorted(multiset.keys() - set(leading), key=lambda element: (-len(element), element))
    return [element for name in (*leading, *rest) for element in [name] * multiset[name]]


def _padded(arrays: Sequence[Sequence[int]]) -> Numbers:
    """One row per array, -1 after its end."""
    width = max(map(len, arrays), default=0)
    return np.array([[*array, *[-1] * (width - len(array))] for array in arrays], np.int64).reshape(len(arrays), width)


def _best(items: Numbers, lengths: Numbers) -> Numbers:
    """The leading elements of each array in their order, -1 from where it shares nothing more."""
    candidates = [_greedy(items.copy(), lengths)]
    if len(items) <= ARRAYS:
        candidates.append(_nested(items, lengths))
    return max(candidates, key=lambda placed: _shared(placed, lengths))


def _shared(placed: Numbers, lengths: Numbers) -> int:
    """Characters that sorted arrays share with the one before."""
    rows = placed[np.lexsort(placed.T[::-1])] if placed.size else placed
    equal = np.logical_and.accumulate((rows[1:] == rows[:-1]) & (rows[1:] >= 0), axis=1)
    return int(lengths[rows[1:][equal]].sum())


def _nested(items: Numbers, lengths: Numbers) -> Numbers:
    rows = np.lexsort(items.T[::-1]) if items.size else np.arange(len(items))
    common = np.empty(items.shape, np.int32)
    common[rows] = nest(items[rows], lengths)
    order = np.argsort(-common, axis=1, kind="stable")
    unshared = np.take_along_axis(common, order, axis=1) == 0
    return np.where(unshared, -1, np.take_along_axis(items, order, axis=1))


def _greedy(left: Numbers, lengths: Numbers) -> Numbers:
    """The leading elements of each array, -1 from where it shares nothing more. Takes what it places out of `left`."""
    placed = np.full(left.shape, -1, np.int64)
    rows: npt.NDArray[np.integer] = np.arange(len(left))
    parent: npt.NDArray[np.integer] = np.zeros(len(left), np.int64)
    for depth in range(left.shape[1]):
        held = left[rows]
        keys = np.where(held >= 0, parent[:, None] * len(lengths) + held, -1)
        distinct, blocks = np.unique(keys, return_inverse=True)
        weights = np.where(distinct >= 0, lengths[distinct % len(lengths)], 0.0)
        chosen = choose_blocks(blocks.reshape(held.shape), weights)
        rows, parent = rows[chosen >= 0], chosen[chosen >= 0]
        element = distinct[parent] % len(lengths)
        placed[rows, depth] = element
        left[rows, (left[rows] == element[:, None]).argmax(axis=1)] = -1
    return placed
