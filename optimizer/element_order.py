"""The order of the elements of arrays that have none of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from heapq import nlargest

import numpy as np
import numpy.typing as npt
from spark_llm.optimizer.blocks import choose_blocks

Ints = npt.NDArray[np.int64]

WIDTH = 64
"""So many shared elements of an array are placed, those worth most: a bound on memory for long arrays."""


def order_elements(arrays: Sequence[Sequence[str]]) -> list[list[str]]:
    """Order the elements of each array so that many arrays begin alike.

    Greedy on sets: the element worth most, `length · (arrays that hold it - 1)`, leads in all arrays that hold it; then
    the same among these without it, and among the others. What is left at the end stands longest first. Equal elements
    of an array stay together.

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
    lengths = np.array([len(name) for name in names], dtype=np.float64)
    worth = {name: len(name) * (holders[name] - 1) for name in names}
    shared = [
        nlargest(WIDTH, (e for e in multiset if e in worth), key=lambda e: (worth[e], e)) for multiset in multisets
    ]
    placed = _place(_padded([sorted(number[element] for element in array) for array in shared]), lengths)
    return [
        _expand([names[i] for i in row if i >= 0], multiset)
        for row, multiset in zip(placed.tolist(), multisets, strict=True)
    ]


def _expand(leading: list[str], multiset: Counter[str]) -> list[str]:
    rest = sorted(multiset.keys() - set(leading), key=lambda element: (-len(element), element))
    return [element for name in (*leading, *rest) for element in [name] * multiset[name]]


def _padded(arrays: Sequence[Sequence[int]]) -> Ints:
    """One row per array, -1 after its end."""
    width = max(map(len, arrays), default=0)
    return np.array([[*array, *[-1] * (width - len(array))] for array in arrays], np.int64).reshape(len(arrays), width)


def _place(left: Ints, lengths: npt.NDArray[np.float64]) -> Ints:
    """The leading elements of each array, -1 from where it shares nothing more. Takes what it places out of `left`."""
    placed = np.full(left.shape, -1, np.int64)
    rows, parent = np.arange(len(left)), np.zeros(len(left), np.int64)
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
