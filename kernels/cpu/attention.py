"""`kernels.paged_attention.paged_attention` by the kernel of `attention.c`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from spark_llm.kernels.cascade import Query
from spark_llm.kernels.cpu import call
from spark_llm.kernels.segments import blocks_of, plan_step
from torch import Tensor

MIN_SHARED_READS = 2048
"""As `cascade.MIN_SHARED_READS`: below, packing the keys for each request costs less than keeping what was seen."""
VECTORS = 384
"""Query vectors that a unit of work holds at most: their sums stay in the second-level cache."""
WIDEST = 256
"""Of `attention.c`: the widest head that its buffers hold."""


@dataclass(frozen=True, slots=True)
class HostPlan:
    """Segments, cut into units of rows: shared runs level by level, and each row's own keys at last."""

    segments: Tensor  # [S, 7]
    units: Tensor  # [n, 3]: segment, begin and end of its rows
    stages: Tensor  # borders of the levels in the units

    @classmethod
    def build(cls, queries: Sequence[Query], page_size: int, group: int, window: int) -> HostPlan:
        """`group`: query heads of a KV head."""
        return cls.of(plan_step(queries, page_size, least=MIN_SHARED_READS, window=window).segments, group)

    @classmethod
    def of(cls, segments: NDArray[np.int32], group: int, own: int = 0) -> HostPlan:
        """Cut segments into units; the plan shares their memory. The last `own` are known to be own keys of one row."""
        most, known = max(1, VECTORS // group), len(segments) - own
        blocks = blocks_of(segments[:known], most)
        level = segments[blocks[:, 0], 6]
        last = 1 + int(segments[:known, 6].max(initial=0))
        level = np.where(level == 0, last, level)  # own keys at last
        blocks = blocks[np.argsort(level, kind="stable")]
        ends = np.minimum(blocks[:, 1] + most, segments[blocks[:, 0], 1])
        rows = np.tile(np.array([0, 0, 1], np.int32), (own, 1))
        rows[:, 0] = np.arange(known, len(segments))
        units = np.concatenate([np.column_stack([blocks, ends]), rows]).astype(np.int32)
        stages = np.append(0, np.bincount(level, minlength=last + 1)[1:].cumsum()).astype(np.int32)
        stages[-1] += own
        return cls(*(torch.from_numpy(array) for array in (segments, units, stages)))


def paged_attention(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    tables: Tensor,
    plan: HostPlan,
    *,
    scale: float,
    softcap: float = 0.0,
    window: int = 0,
) -> Tensor:
    """Attention [T, H, D] of the rows of a step, by its plan."""
    rows, heads, width = q.shape
    q = q if q.stride()[1:] == (width, 1) else q.contiguous()
    out = torch.empty(q.shape, dtype=q.dtype)
    state = torch.empty(rows * heads * (2 + width), dtype=torch.float32)
    arrays = (q, k_cache, v_cache, out, state, tables, plan.segments, plan.units, plan.stages)
    sizes = (len(plan.stages) - 1, q.stride(0), tables.stride(0), rows, heads, k_cache.shape[2], width)
    call("segment_attention", *arrays, *sizes, k_cache.shape[1], window, float(scale), float(softcap))
    return out
