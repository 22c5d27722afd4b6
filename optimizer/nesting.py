"""Nested groups of rows from the bottom up: rows that share most are joined first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.integer]
Bools = npt.NDArray[np.bool_]

COMMON = 256
"""Items that more rows hold join no groups; they come along where a group has them in common. A bound on time."""

ROUNDS = 200
"""Of joins; real tables take a few dozen. A bound on time where each round finds one pair only."""

_SLICE = 256
"""So many groups look at a time: a bound on memory."""

_MIXED = np.uint64(0x9E3779B97F4A7C15)
"""An odd factor, so that different pairs stay different; it spreads pairs that share as much."""


def nest(items: Numbers, lengths: Numbers) -> npt.NDArray[np.int32]:
    """How far each item of each row is shared when rows are nested by what they share.

    Whatever tree joins the rows two by two, a join saves the text that both sides have in common, for it is then kept
    once: the items that a larger group shares lead, those that only a smaller one shares follow. So the joins that save
    most come first.

    Parameters
    ----------
    items : int array of shape (n, w)
        The items of each row, each at most once, -1 for none. Rows in an order of their own make the result independent
        of the given one.
    lengths : int array of shape (k,)
        Characters of each item.

    Returns
    -------
    int array of shape (n, w)
        The round in which the largest group was joined that has the item in common, from 1; 0 for the items that the
        row shares with none. Rows begin alike if their items stand in descending order of it.

    Notes
    -----
    Agglomerative clustering by rounds of reciprocal nearest neighbours (Murtagh, The Computer Journal 26, 1983): a
    joined group is to no other nearer than its parts were, so all pairs that are nearest to each other can be joined at
    once, and only groups whose nearest has gone look again.
    """
    counts = np.bincount(items[items >= 0].ravel(), minlength=len(lengths))
    held = np.where((items >= 0) & (counts > 1)[items], items, -1)  # by group; a joined one has its first part's place
    nearest = np.full(len(held), -1)
    looking: Numbers = np.arange(len(held))
    joins: list[tuple[Numbers, Numbers, Bools, Numbers]] = []
    while len(looking) and len(joins) < ROUNDS:
        nearest[looking] = _nearest(held, looking, lengths, counts <= COMMON)
        left = np.flatnonzero((nearest[nearest] == np.arange(len(held))) & (nearest > np.arange(len(held))))
        right = nearest[left]
        held[left], place = _in_common(held[left], held[right])
        held[right], nearest[right] = -1, -1
        joins.append((left, right, held[left] >= 0, place))
        gone = np.zeros(len(held) + 1, bool)
        gone[left] = gone[right] = True
        looking = np.flatnonzero(gone[nearest])
    return _rounds(held, joins)


def _nearest(held: Numbers, looking: Numbers, lengths: Numbers, joining: Bools) -> Numbers:
    """The group that shares most with each of those looking for it, -1 where none shares anything."""
    group, column = np.nonzero((held >= 0) & joining[held])
    item = held[group, column]
    holders = group[np.argsort(item, kind="stable")]
    count = np.bincount(item, minlength=len(lengths))
    first = np.cumsum(count) - count
    found = np.full(len(held), -1)
    for start in range(0, len(looking), _SLICE):
        some = looking[start : start + _SLICE]
        begin, end = np.searchsorted(group, [some[0], some[-1] + 1])
        asks = np.isin(group[begin:end], some)
        each = item[begin:end][asks]
        one: Numbers = group[begin:end][asks]
        several = count[each]
        other: Numbers = holders[
            np.arange(several.sum()) + np.repeat(first[each] - np.cumsum(several) + several, several)
        ]
        one, other = _closest(np.repeat(one, several), other, np.repeat(lengths[each], several))
        tie = (np.minimum(one, other) * len(held) + np.maximum(one, other)).astype(np.uint64) * _MIXED
        by_tie = np.argsort(tie)
        found[one[by_tie]] = other[by_tie]
    return found[looking]


def _closest(one: Numbers, other: Numbers, lengths: Numbers) -> tuple[Numbers, Numbers]:
    """Of each group `one` every `other` with which the `lengths` are most in sum; pairs may stand twice."""
    (row, rows), (column, columns) = _numbered(one), _numbered(other)
    pair = row * columns + column
    shared = np.bincount(pair, lengths, minlength=rows * columns)
    shared[pair[one == other]] = 0.0
    most = shared.reshape(rows, columns).max(axis=1, initial=0.0)
    closest = np.flatnonzero((shared[pair] == most[row]) & (one != other))
    return one[closest], other[closest]


def _numbered(groups: Numbers) -> tuple[Numbers, int]:
    """The groups numbered without gaps, and how many there are."""
    present = np.zeros(groups.max(initial=-1) + 1, bool)
    present[groups] = True
    number = np.cumsum(present) - 1
    return number[groups], int(number[-1]) + 1 if len(groups) else 0


def _in_common(left: Numbers, right: Numbers) -> tuple[Numbers, Numbers]:
    """The items of `left` that `right` holds too, in their places, and for the items of `right` that place or -1."""
    common, place = np.full_like(left, -1), np.full_like(right, -1)
    for column, item in enumerate(right.T):
        equal = (left == item[:, None]) & (item >= 0)[:, None]
        common = np.where(equal, left, common)
        place[:, column] = np.where(equal.any(axis=1), equal.argmax(axis=1), -1)
    return common, place


def _rounds(held: Numbers, joins: Sequence[tuple[Numbers, Numbers, Bools, Numbers]]) -> npt.NDArray[np.int32]:
    """For each item the last round in which its row's group had it in common, from the last joins to the first."""
    last = np.zeros(held.shape, np.int32)
    for number in range(len(joins), 0, -1):
        left, right, common, place = joins[number - 1]
        last[left] = np.where(common & (last[left] == 0), number, last[left])
        last[right] = np.where(place >= 0, np.take_along_axis(last[left], np.maximum(place, 0), axis=1), 0)
    return last
