"""The plan of a decode step, carried from one step to the next: every request gains one token, the groups stay.

A new plan costs milliseconds of Python for hundreds of requests. Between decode steps only three things change: each
request sees one key more (an element of its mask), some begin a page, and the longest is longer by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from spark_llm.kernels.cascade import Group, Int, Query, pad_tables, plan_cascade
from spark_llm.kernels.cpu.attention import HostPlan
from spark_llm.kernels.paged_attention import PagedBatch, Part

AHEAD = 4
"""Pages by which each request may grow before a new plan is needed."""


class DecodeBatch:
    """Requests of one new token each, row r belonging to request r.

    Parameters
    ----------
    tables : sequence of int32 arrays
        Page tables in `cascade.table_order`; each reaches its request's position.
    positions : [R]
        The position of each request's new token.
    """

    def __init__(
        self,
        tables: Sequence[NDArray[np.int32]],
        positions: Int,
        page_size: int,
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._device = device
        groups = plan_cascade(self._begin(tables, positions, page_size), page_size)
        self._shared = [Part.of(group, dtype, device) for group in groups if not group.diagonal]
        own = [group for group in groups if group.diagonal]
        self._own = [Part.of(_without_mask(group), dtype, device) for group in own]
        self._shapes = [(len(group.pages), group.pages.shape[1] + AHEAD) for group in own]
        self._lay_out(own, dtype)
        self._refresh()

    def advance(self, begun: Mapping[int, int]) -> None:
        """Move every request on by one token; `begun` holds the page that a request's new position begins, if any."""
        self.positions += 1
        self.room -= 1
        for row, page in begun.items():
            self._tables[row, self.positions[row] // self._page_size] = page
            first, offset = self._page_at[row]
            self._pages[first + (self.positions[row] - offset) // self._page_size] = page
        self._visible += 1
        self._mask[self._visible] = 0
        self._refresh()

    def _begin(self, tables: Sequence[NDArray[np.int32]], positions: Int, page_size: int) -> list[Query]:
        self.positions, self._page_size = positions.copy(), page_size
        self._tables = pad_tables([np.append(table, _MORE) for table in tables])
        self.room = _room(positions, page_size)  # steps before a new plan
        at = enumerate(zip(positions.tolist(), tables, strict=True))
        return [Query(r, p, p + 1, table) for r, (p, table) in at]

    def slots(self) -> Int:
        """Where the new keys and values go."""
        page, offset = np.divmod(self.positions, self._page_size)
        return self._tables[np.arange(len(page)), page].astype(np.int64) * self._page_size + offset

    def _lay_out(self, groups: Sequence[Group], dtype: torch.dtype) -> None:
        """All groups' pages, and all their masks, one behind the other, so that a step touches each once."""
        rows = len(self.positions)
        self._page_at: list[tuple[int, int]] = [(0, 0)] * rows  # where a request's pages begin; position of the first
        visible = np.zeros(rows, np.int64)
        pages, masks, start = [], [], 0
        for group, (count, width) in zip(groups, self._shapes, strict=True):
            keys = width * self._page_size
            members = group.rows[:, 0]
            last = group.last - 1 if group.key_offsets is None else None
            offsets = self.positions[members] - last if last is not None else np.asarray(group.key_offsets)
            padded = np.zeros((count, width), np.int64)
            padded[:, : group.pages.shape[1]] = group.pages
            seen = np.arange(keys) <= (self.positions[members] - offsets)[:, None]
            for b, row in enumerate(members.tolist()):
                self._page_at[row] = start + b * width, int(offsets[b])
                visible[row] = (start + b * width) * self._page_size + self.positions[row] - offsets[b]
            pages.append(padded)
            masks.append(np.where(seen, np.float32(0), np.float32(-np.inf)))
            start += count * width
        self._pages = torch.from_numpy(np.concatenate([p.reshape(-1) for p in pages])).to(self._device)
        self._mask = torch.from_numpy(np.concatenate([m.reshape(-1) for m in masks])).to(self._device, dtype)
        self._visible = torch.from_numpy(visible).to(self._device)
        self._longest = [int(g.last if g.key_offsets is None else self._keys_of(g)) for g in groups]

    def _keys_of(self, group: Group) -> int:
        return int((self.positions[group.rows[:, 0]] - np.asarray(group.key_offsets)).max()) + 1

    def _refresh(self) -> None:
        parts, start, size = [], 0, self._page_size
        for i, (part, (count, width)) in enumerate(zip(self._own, self._shapes, strict=True)):
            keys, stop = self._longest[i], start + count * width
            columns = -(-keys // size)
            pages = self._pages[start:stop].view(count, width)[:, :columns].reshape(-1)
            mask = self._mask[start * size : stop * size].view(count, 1, 1, width * size)[..., :keys]
            parts.append(part.with_keys(pages, keys, mask if count > 1 else None))
            self._longest[i], start = keys + 1, stop
        self.batch = PagedBatch(_NONE, _NONE, _NONE, (*parts, *self._shared))


class HostDecodeBatch(DecodeBatch):
    """A `DecodeBatch` for the compiled kernels, whose requests may also leave and be joined by others.

    Those that join stand behind the others and read all of their keys alone, also where they share some.

    Parameters
    ----------
    group : int
        Query heads of a KV head.
    """

    def __init__(self, tables: Sequence[NDArray[np.int32]], positions: Int, page_size: int, *, group: int) -> None:
        plan = HostPlan.build(self._begin(tables, positions, page_size), page_size, group, 0)
        self._segments = plan.segments.numpy()  # shared runs first, then the own keys of each request
        self._group = group
        self._plan: PagedBatch | None = None

    @property
    def batch(self) -> PagedBatch:  # type: ignore[override]
        """The plan of the next step."""
        if self._plan is None:
            plan = HostPlan.of(self._segments, self._group, own=len(self.positions))
            self._plan = PagedBatch(_NONE, _NONE, torch.from_numpy(self._tables), (), host_plan=plan)
        return self._plan

    def advance(self, begun: Mapping[int, int]) -> None:
        self.positions += 1
        self.room -= 1
        for row, page in begun.items():
            self._tables[row, self.positions[row] // self._page_size] = page
        self._own_segments[:, 4:6] += 1  # last key, and position

    def keep(self, rows: NDArray[np.bool_]) -> None:
        """Go on without the other rows [R]; those that stay move up."""
        shared, own = self._segments[: -len(rows)], self._own_segments[rows]
        before = np.append(0, rows.cumsum())  # rows that stay, in front of each
        first, last = before[shared[:, 0]], before[shared[:, 0] + shared[:, 1]]
        shared[:, 0] = shared[:, 2] = first
        shared[:, 1] = last - first
        own[:, 0] = own[:, 2] = np.arange(len(own))
        self._segments = np.concatenate([shared[last > first], own])
        self._tables, self.positions, self._plan = self._tables[rows], self.positions[rows], None

    def join(self, tables: Sequence[NDArray[np.int32]], positions: Int) -> None:
        """Take in requests, as in the constructor, whose tables reach their positions."""
        (known, width), new = self._tables.shape, np.zeros((len(tables), 7), np.int32)
        new[:, 0] = new[:, 2] = known + np.arange(len(tables))
        new[:, 1], new[:, 4], new[:, 5] = 1, positions + 1, positions
        self._segments = np.concatenate([self._segments, new])
        joined = np.zeros((known + len(tables), max(width, *(len(table) + AHEAD for table in tables))), np.int32)
        joined[:known, :width] = self._tables
        for row, table in zip(joined[known:], tables, strict=True):
            row[: len(table)] = table
        self._tables, self.positions, self._plan = joined, np.concatenate([self.positions, positions]), None
        self.room = min(self.room, _room(positions, self._page_size))

    @property
    def _own_segments(self) -> NDArray[np.int32]:
        """The segments of the requests' own keys; a view."""
        return self._segments[-len(self.positions) :]


def _room(positions: Int, page_size: int) -> int:
    """Steps for which tables longer by `AHEAD` pages suffice."""
    return AHEAD * page_size - int((positions % page_size).max()) - 1


_MORE = np.zeros(AHEAD, np.int32)
_NONE = torch.empty(0)


def _without_mask(group: Group) -> Group:
    return Group(group.rows, group.pages, group.first, group.last)
