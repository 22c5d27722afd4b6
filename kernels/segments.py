"""The attention of a step as segments: which rows attend to which keys, for kernels that read pages. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from spark_llm.kernels.cascade import Query, shared_runs

Int32 = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class StepPlan:
    """Level 0 holds each row's own keys, the levels above the runs of keys that it shares with others.

    A segment: first row, number of rows, table, first key, last key (exclusive), position of the first row (-1: every
    row sees every key), level. `firsts` and `lengths` are the own keys of each request. A `decode` plan (one row a
    request) has no segments of level 0: `gpu.decode_attention` reads its own keys.
    """

    segments: Int32  # [S, 7]
    firsts: Int32  # [R]
    lengths: Int32  # [R]
    levels: int
    decode: bool
    longest: int  # of the own keys
    most_rows: int  # of a segment


def plan_step(
    queries: Sequence[Query], page_size: int, *, least: int, window: int = 0, decode_apart: bool = False
) -> StepPlan:
    """Plan requests in `table_order`; every visible key of a row is in exactly one of its levels.

    A run of pages is shared where at least `least` key reads meet in it, unless a window hides keys.
    """
    share = not (window and any(q.end > window for q in queries))
    segments: list[tuple[int, ...]] = []
    depths, levels = [0] * len(queries), [0] * len(queries)
    for first, last, start, end in shared_runs(queries, page_size, least) if share else ():
        sharing = [i for i in range(first, last) if depths[i] == start and queries[i].start >= end * page_size]
        level = 1 + max((levels[i] for i in sharing), default=0)
        for run in _neighbours(sharing) if len(sharing) > 1 else ():
            row, stop = queries[run[0]].row, queries[run[-1]].row + queries[run[-1]].end - queries[run[-1]].start
            segments.append((row, stop - row, run[0], start * page_size, end * page_size, -1, level))
            for i in run:
                depths[i], levels[i] = end, level
    firsts = np.array(depths, np.int32) * page_size
    lengths = np.array([q.end for q in queries], np.int32)
    decode = decode_apart and all(q.end - q.start == 1 for q in queries)
    if not decode:
        for i, q in enumerate(queries):
            segments.append((q.row, q.end - q.start, i, int(firsts[i]), q.end, q.start, 0))
    table = np.array(segments, np.int32).reshape(-1, 7)
    most = int(table[:, 1].max()) if len(table) else 0
    return StepPlan(table, firsts, lengths, 1 + max(levels), decode, int((lengths - firsts).max()), most)


def blocks_of(segments: Int32, rows_per_block: int) -> Int32:
    """[B, 2]: each segment cut into blocks of rows, those with the most keys first."""
    counts = -(-segments[:, 1] // rows_per_block)
    segment = np.repeat(np.arange(len(segments)), counts)
    begin = (np.arange(len(segment)) - np.repeat(counts.cumsum() - counts, counts)) * rows_per_block
    reach = np.where(segments[segment, 5] < 0, segments[segment, 4], segments[segment, 5] + begin)
    order = np.argsort(segments[segment, 3] - reach, kind="stable")
    return np.stack([segment, begin], axis=1)[order].astype(np.int32)


def _neighbours(requests: Sequence[int]) -> list[list[int]]:
    """Runs of consecutive numbers."""
    runs: list[list[int]] = []
    for request in requests:
        if runs and runs[-1][-1] == request - 1:
            runs[-1].append(request)
        else:
            runs.append([request])
    return runs
