"""Nested groups of rows from the bottom up: rows that share most are joined first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.integer]
Items = frozenset[int]

COMMON = 256
"""Items that more rows hold join no groups; they come along where a group has them in common. A bound on time."""


@dataclass(frozen=True, slots=True)
class Group:
    """Rows with the items that all of them hold: one row, or two groups joined."""

    items: Items
    parts: tuple[Group, Group] | int


def nest(items: Numbers, lengths: Numbers) -> npt.NDArray[np.int32]:
    """Where each item of each row stands when rows are nested by what they share.

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
        The level of each item, from 0; w for those that the row shares with none. A row's items in ascending level
        begin as those of the rows that are nested with it.

    Notes
    -----
    Agglomerative clustering by nearest-neighbour chains (Murtagh, The Computer Journal 26, 1983): a joined group is to
    no other nearer than its parts were, so the chains find the same joins as a search for the nearest pair of all.
    """
    counts = np.bincount(items[items >= 0].ravel(), minlength=len(lengths))
    shared = (items >= 0) & (counts > 1)[items]
    rows = [frozenset(row[mask].tolist()) for row, mask in zip(items, shared, strict=True)]
    chains = _Chains(rows, lengths.tolist(), (counts > COMMON).tolist())
    level = np.full(items.shape, items.shape[1], np.int32)
    for root in chains.roots():
        for row, levels in _levels(root):
            level[row] = np.array([levels.get(item, items.shape[1]) for item in items[row].tolist()])
    return level


class _Chains:
    """The groups that are joined no further so far, and who holds which item."""

    def __init__(self, rows: list[Items], lengths: list[int], common: list[bool]) -> None:
        self.groups: dict[int, Group] = {i: Group(items, i) for i, items in enumerate(rows)}
        self.lengths = lengths
        self.holders: dict[int, set[int]] = {}
        for i, items in enumerate(rows):
            for item in items:
                if not common[item]:
                    self.holders.setdefault(item, set()).add(i)

    def roots(self) -> Iterator[Group]:
        """Join all that share anything, and yield the groups that remain."""
        for start in range(len(self.groups)):
            chain: list[int] = []
            while chain or start in self.groups:
                chain = chain or [start]
                nearest = self._nearest(chain[-1], chain[-2] if len(chain) > 1 else -1)
                if nearest == -1:
                    yield self._remove(chain.pop())
                elif len(chain) > 1 and nearest == chain[-2]:
                    self._join(chain.pop(), chain.pop())
                else:
                    chain.append(nearest)

    def _nearest(self, group: int, previous: int) -> int:
        """The group that shares most with this one: `previous` if none shares more, -1 if none shares anything."""
        shared: dict[int, int] = {}
        for item in self.groups[group].items:
            length, holders = self.lengths[item], self.holders.get(item, ())
            if not shared:
                shared = dict.fromkeys(holders, length)
                continue
            for other in holders:
                shared[other] = shared.get(other, 0) + length
        shared.pop(group, None)
        most = max(shared.values(), default=0)
        if most == shared.get(previous):
            return previous
        return list(shared)[list(shared.values()).index(most)] if most else -1

    def _join(self, one: int, other: int) -> None:
        """Join two groups; the first number is free then, the other the joined group's."""
        left, right = self._remove(one), self._remove(other)
        self.groups[other] = joined = Group(left.items & right.items, (left, right))
        for item in joined.items:
            if item in self.holders:
                self.holders[item].add(other)

    def _remove(self, group: int) -> Group:
        removed = self.groups.pop(group)
        for item in removed.items:
            if item in self.holders:
                self.holders[item].discard(group)
        return removed


def _levels(root: Group) -> Iterator[tuple[int, dict[int, int]]]:
    """Every row of a tree of groups with the level of each item that it shares."""
    open_groups: list[tuple[Group, dict[int, int], int]] = [(root, {}, 0)]
    while open_groups:
        group, levels, depth = open_groups.pop()
        if isinstance(group.parts, int):
            yield group.parts, levels
        else:
            new = group.items - levels.keys()
            below = levels | dict.fromkeys(new, depth) if new else levels
            open_groups += [(part, below, depth + bool(new)) for part in group.parts]
