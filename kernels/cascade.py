"""Which queries attend to which pages together: the plan of cascade attention over a batch of page tables.

Requests that share a prefix share its physical pages. Sorted by page table, the sharers of a run of pages are
neighbours, so their queries attend to the run in one call instead of one per request (Hydragen, arXiv 2402.05099;
the cascade of FlashInfer). Every query has exactly one *diagonal* group, which holds its own position; further groups
hold earlier keys and are merged by log-sum-exp. Pure numpy: the plan costs no model time and is shared by all layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Int = NDArray[np.int64]

MIN_SHARED_READS = 512
"""A run is shared when that many key reads (requests x tokens) meet in it; below, the extra call costs more."""
MAX_PADDING = 1.3
"""Requests are attended together while padding stays within this factor of the useful keys."""
SMALL_AREA = 4096
"""Scores that may be wasted in any case."""
MAX_MASK = 1 << 21
"""Elements of one group's mask."""


class Query(NamedTuple):
    """One request of a step: its new tokens are positions start..end, stored at rows row.. of the step."""

    row: int
    start: int
    end: int
    table: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Group:
    """Queries that attend to the same pages, or equally many padded ones, in one call.

    `rows` [B, Lq] are padded by repetition; of the gathered pages [B, n] keys `first:last` are used. Without
    `query_positions` every query sees every key, or query i keys 0..i if `causal`; with them, query (b, i) sees
    the key at position p of its table if `p <= query_positions[b, i]`. `key_offsets` [B] is the position of the first
    gathered key.
    """

    rows: Int
    pages: Int
    first: int
    last: int
    causal: bool = False
    diagonal: bool = True
    query_positions: Int | None = None
    key_offsets: Int | None = None
    window: int = 0


def plan_cascade(queries: Sequence[Query], page_size: int, window: int = 0) -> list[Group]:
    """Cover every (query, visible key) pair exactly once; the diagonal groups come first.

    Queries should stand in the order of their page tables (`table_order`), so that the rows of sharers are contiguous.
    With a window that is shorter than some context, every request reads its own last pages.
    """
    if window and any(q.end > window for q in queries):
        depths = [max(0, q.start - window + 1) // page_size for q in queries]
        rests = [_Rest(q, d, q.end - q.start, q.end - d * page_size) for q, d in zip(queries, depths, strict=True)]
        return [_padded(bucket, page_size, window) for bucket in _buckets(sorted(rests, key=_size))]
    groups: list[Group] = []
    depths = [0] * len(queries)
    for first, last, start, end in shared_runs(queries, page_size):
        depths[first:last] = [end] * (last - first)
        groups += _trunk(queries[first:last], start, end, page_size)
    groups += _private(list(zip(queries, depths, strict=True)), page_size)
    return sorted(groups, key=lambda group: not group.diagonal)


def table_order(tables: Sequence[NDArray[np.int32]]) -> list[int]:
    """Indices of the tables such that equal prefixes of pages are neighbours."""
    keys = [table.astype(">i4").tobytes() for table in tables]
    return sorted(range(len(keys)), key=keys.__getitem__)


def pad_tables(tables: Sequence[NDArray[np.int32]], fill: NDArray[np.int32] | int = 0) -> NDArray[np.int32]:
    """Page tables as the rows of one matrix; `fill` (per row) stands behind the shorter ones."""
    lengths = np.array([len(table) for table in tables])
    padded = np.empty((len(tables), lengths.max()), np.int32)
    padded.T[:] = fill
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = np.concatenate(tables)
    return padded


def shared_runs(
    queries: Sequence[Query], page_size: int, least: int | None = None
) -> Iterator[tuple[int, int, int, int]]:
    """Yield (first request, last request, first page, last page) of each run worth sharing, trunks before branches.

    `least` is the number of key reads that must meet in it (default `MIN_SHARED_READS`).
    """
    least = MIN_SHARED_READS if least is None else least
    common = _common_pages(queries)
    stack = [(0, len(queries), 0)]
    while stack:
        first, last, depth = stack.pop()
        if last - first < 2:
            continue
        shared = min(common[first : last - 1])
        if (shared - depth) * page_size * (last - first) >= least:
            yield first, last, depth, shared
            depth = shared
        cuts = [i + 1 for i in range(first, last - 1) if common[i] == shared]
        stack += [(a, b, depth) for a, b in zip([first, *cuts], [*cuts, last], strict=True)]


def _common_pages(queries: Sequence[Query]) -> list[int]:
    """Of each neighbouring pair: how many pages their tables begin with in common."""
    tables = pad_tables([q.table for q in queries], -1 - np.arange(len(queries), dtype=np.int32))
    end = np.ones((len(queries) - 1, 1), bool)
    return np.hstack([tables[1:] != tables[:-1], end]).argmax(axis=1).tolist()


def _trunk(queries: Sequence[Query], start: int, end: int, page_size: int) -> Iterator[Group]:
    """Pages start:end, shared by the queries: full for those behind the run, causal for those that compute it now."""
    first, last = start * page_size, end * page_size
    rows = np.arange(queries[0].row, queries[-1].row + queries[-1].end - queries[-1].start)
    for q in queries:
        if q.start < last:
            rows = rows[(rows < q.row) | (rows >= q.row + last - q.start)]
            yield from _own(q, max(q.start, first), last, first, page_size)
    if rows.size:
        yield Group(rows[None], *_span(queries[0], first, last, page_size), diagonal=False)


def _own(q: Query, begin: int, end: int, first: int, page_size: int) -> Iterator[Group]:
    """The queries at positions begin:end of one request over its keys first:end."""
    rows = np.arange(q.row + begin - q.start, q.row + end - q.start)[None]
    if end - begin == 1:
        yield Group(rows, *_span(q, first, end, page_size))
        return
    yield Group(rows, *_span(q, begin, end, page_size), causal=True)
    if begin > first:
        yield Group(rows, *_span(q, first, begin, page_size), diagonal=False)


def _span(q: Query, first: int, last: int, page_size: int) -> tuple[Int, int, int]:
    """Positions first:last of a request, as pages [1, n] and the keys first:last of these."""
    page = first // page_size
    pages = q.table[page : -(-last // page_size)].astype(np.int64)[None]
    return pages, first - page * page_size, last - page * page_size


def _private(items: list[tuple[Query, int]], page_size: int) -> Iterator[Group]:
    """What each request does not share, from its depth on, in padded groups of like size."""
    rests = [_Rest(q, depth, q.end - max(q.start, depth * page_size), q.end - depth * page_size) for q, depth in items]
    for bucket in _buckets(sorted((r for r in rests if r.queries > 0), key=_size)):
        if len(bucket) == 1:
            (rest,) = bucket
            q = rest.query
            yield from _own(q, q.end - rest.queries, q.end, rest.depth * page_size, page_size)
        else:
            yield _padded(bucket, page_size)


class _Rest(NamedTuple):
    """The unshared part of a request: its last `queries` positions over its last `keys` keys, from page `depth` on."""

    query: Query
    depth: int
    queries: int
    keys: int


def _size(rest: _Rest) -> tuple[int, int]:
    return rest.queries, rest.keys


def _buckets(rests: list[_Rest]) -> Iterator[list[_Rest]]:
    bucket: list[_Rest] = []
    useful = widest = 0
    for rest in rests:
        useful += rest.queries * rest.keys
        widest = max(widest, rest.keys)
        padded = rest.queries * widest * (len(bucket) + 1)
        if bucket and padded > min(MAX_MASK, MAX_PADDING * useful + SMALL_AREA):
            yield bucket
            bucket, useful, widest = [], rest.queries * rest.keys, rest.keys
        bucket.append(rest)
    if bucket:
        yield bucket


def _padded(bucket: list[_Rest], page_size: int, window: int = 0) -> Group:
    """Padding repeats a request's last query (an equal value is written twice) and page 0 (hidden by position)."""
    keys = max(rest.keys for rest in bucket)
    counts = np.array([rest.queries for rest in bucket])[:, None]
    ends = np.array([rest.query.end for rest in bucket])[:, None]
    starts = np.array([rest.query.start for rest in bucket])[:, None]
    rows = np.array([rest.query.row for rest in bucket])[:, None]
    positions = ends - counts + np.minimum(np.arange(counts.max()), counts - 1)
    pages = pad_tables([r.query.table[r.depth : -(-r.query.end // page_size)] for r in bucket]).astype(np.int64)
    offsets = np.array([rest.depth * page_size for rest in bucket])
    at = rows + positions - starts
    return Group(at, pages, 0, keys, query_positions=positions, key_offsets=offsets, window=window)
