"""`kernels.paged_attention.paged_attention` on a GPU: shared runs once for all their sharers, own keys by request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from spark_llm.kernels.cascade import Query
from spark_llm.kernels.gpu.decode_attention import decode_attention, splits_for
from spark_llm.kernels.gpu.merge import merge_parts
from spark_llm.kernels.gpu.segment_attention import block_shape, segment_attention
from spark_llm.kernels.segments import blocks_of, plan_step
from torch import Tensor

MIN_SHARED_READS = 1 << 15
"""As `cascade.MIN_SHARED_READS`; a GPU reads short prefixes once for each request faster than it merges."""


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """A `StepPlan` on the device. `splits` of a decode step precede the levels of its shared runs."""

    segments: Tensor  # [S, 7]
    blocks: Tensor  # [B, 2]
    firsts: Tensor  # [R]
    lengths: Tensor  # [R]
    shape: tuple[int, int, int, int]
    splits: int  # 0 where own keys are segments
    levels: int

    @classmethod
    def build(
        cls, queries: Sequence[Query], page_size: int, heads: tuple[int, int, int], window: int, device: torch.device
    ) -> DevicePlan:
        """`heads`: query heads, KV heads, head dimension. A window that hides keys leaves nothing to share."""
        query_heads, kv_heads, width = heads
        plan = plan_step(queries, page_size, least=MIN_SHARED_READS, window=window, decode_apart=True)
        shape = block_shape(width, query_heads // kv_heads, plan.most_rows)
        segments, splits = plan.segments, 0
        if plan.decode:
            splits = splits_for(len(queries), kv_heads, plan.longest)
            segments = segments.copy()
            segments[:, 6] += splits - 1
        blocks = blocks_of(segments, shape[0] // (query_heads // kv_heads))
        return cls(
            segments=torch.from_numpy(segments).to(device),
            blocks=torch.from_numpy(blocks).to(device),
            firsts=torch.from_numpy(plan.firsts).to(device),
            lengths=torch.from_numpy(plan.lengths).to(device),
            shape=shape,
            splits=splits,
            levels=max(1, splits) + plan.levels - 1,
        )


def paged_attention(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    tables: Tensor,
    plan: DevicePlan,
    *,
    scale: float,
    softcap: float = 0.0,
    window: int = 0,
) -> Tensor:
    """Attention [T, H, D] of the rows of a step, by its plan."""
    options: dict[str, Any] = {"scale": scale, "softcap": softcap, "window": window}
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    several = plan.levels > 1 or plan.splits
    dtype = torch.float32 if several else q.dtype
    parts = torch.empty((plan.levels, *q.shape), dtype=dtype, device=q.device) if several else out[None]
    lse = torch.full((plan.levels, *q.shape[:2]), -torch.inf, dtype=torch.float32, device=q.device)
    if plan.splits:
        decode_attention(
            q, k_cache, v_cache, tables, plan.firsts, plan.lengths, parts, lse, splits=plan.splits, **options
        )
    segment_attention(q, k_cache, v_cache, tables, plan.segments, plan.blocks, parts, lse, shape=plan.shape, **options)
    if several:
        merge_parts(parts, lse, out)
    return out
