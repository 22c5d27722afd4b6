"""Attention of runs of rows over runs of paged keys: extend attention, and shared prefixes, in one launch.

A *segment* is a run of rows of the step that attends to positions first:last of one page table: causally, where the
rows are the last positions of the request that owns the table, or wholly, where they share the run as a prefix. Flash
attention (Dao, arXiv 2307.08691) with all query heads of a KV head in one block, so that keys are read once for them.
"""

from __future__ import annotations

import triton
import triton.language as tl
from spark_llm.kernels.gpu.attend_keys import attend_keys
from torch import Tensor


@triton.jit
def _segment_kernel(
    q,  # [T, H, D], rows strided
    k_cache,  # [pages, P, KV_HEADS, D]
    v_cache,
    out,  # [L, T, H, D]
    lse,  # [L, T, H]
    tables,  # [R, n]
    segments,  # [S, 7]: first row, rows, table, first key, last key, position of the first row or -1, level
    blocks,  # [B, 2]: segment, first of its rows
    q_stride,
    table_stride,
    level_rows,  # T
    scale,
    softcap,
    window,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    D: tl.constexpr,
    P: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    SOFTCAP: tl.constexpr,
    WINDOW: tl.constexpr,
):
    QUERIES: tl.constexpr = BLOCK_M // GROUP
    segment, begin_row = tl.load(blocks + 2 * tl.program_id(0)), tl.load(blocks + 2 * tl.program_id(0) + 1)
    head = tl.program_id(1)
    entry = segments + 7 * segment
    first_row, rows = tl.load(entry).to(tl.int64), tl.load(entry + 1)
    table = tables + tl.load(entry + 2).to(tl.int64) * table_stride
    first, last, position = tl.load(entry + 3), tl.load(entry + 4), tl.load(entry + 5)
    level = tl.load(entry + 6).to(tl.int64)

    m, at_d = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_D)
    query = begin_row + m // GROUP
    held = (m // GROUP < QUERIES) & (query < rows)
    heads = head * GROUP + m % GROUP
    H: tl.constexpr = KV_HEADS * GROUP
    source = q + (first_row + query)[:, None] * q_stride + heads[:, None] * D + at_d[None, :]
    rows_q = tl.load(source, mask=held[:, None] & (at_d < D)[None, :], other=0.0)

    causal = position >= 0
    limit = tl.where(causal, position + query, last - 1)
    lowest = tl.where(causal, position + begin_row, last - 1)  # what the block's first row sees
    upmost = tl.minimum(last, tl.where(causal, position + tl.minimum(begin_row + QUERIES, rows), last))
    start = first
    if WINDOW:
        start = tl.maximum(first, tl.where(causal, lowest - window + 1, first))
    acc = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    highest = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    whole = start  # keys that all rows of the block see, in whole blocks
    if not WINDOW:
        whole = start + (tl.maximum(tl.minimum(lowest + 1, last) - start, 0) // BLOCK_N) * BLOCK_N
        acc, total, highest = attend_keys(
            acc, total, highest, rows_q, k_cache, v_cache, table, start, whole, last, limit, head, scale, softcap,
            window, KV_HEADS, D, P, BLOCK_N, BLOCK_D, SOFTCAP, False, False,
        )  # fmt: skip
    acc, total, highest = attend_keys(
        acc, total, highest, rows_q, k_cache, v_cache, table, whole, upmost, last, limit, head, scale, softcap,
        window, KV_HEADS, D, P, BLOCK_N, BLOCK_D, SOFTCAP, True, WINDOW,
    )  # fmt: skip
    result = acc / tl.where(total > 0, total, 1.0)[:, None]
    place = (level * level_rows + first_row + query) * H + heads
    target = out + place[:, None] * D + at_d[None, :]
    tl.store(target, result.to(out.dtype.element_ty), mask=held[:, None] & (at_d < D)[None, :])
    tl.store(lse + place, highest * 0.6931471805599453 + tl.log(total), mask=held)


def block_shape(head_dim: int, group: int, rows: int) -> tuple[int, int, int, int]:
    """BLOCK_M, BLOCK_N, warps and stages for segments of up to `rows` rows."""
    wanted = max(16, triton.next_power_of_2(max(group, min(rows, 128) * group)))
    if head_dim > 128:
        return min(64, wanted), 32, 4, 2
    if wanted >= 128:
        return 128, 64, 8, 3
    return wanted, 64, 4, 3


def segment_attention(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    tables: Tensor,
    segments: Tensor,
    blocks: Tensor,
    out: Tensor,
    lse: Tensor,
    *,
    shape: tuple[int, int, int, int],
    scale: float,
    softcap: float = 0.0,
    window: int = 0,
) -> None:
    """Write each segment's attention and log-sum-exp to its level of out [L, T, H, D] and lse [L, T, H].

    Parameters
    ----------
    q : [T, H, D], the heads of a row side by side
    k_cache, v_cache : [pages, P, Hkv, D]
    tables : [R, n] in int32
    segments : [S, 7] in int32
        Those of `segments.StepPlan`.
    blocks : [B, 2] in int32
        Segment and first row within it of each block of `shape[0] // (H / Hkv)` rows (`segments.blocks_of`).
    """
    width, kv_heads = q.shape[2], k_cache.shape[2]
    block_m, block_n, warps, stages = shape
    assert q.stride()[1:] == (width, 1), "the heads of a row must lie side by side"
    if not len(blocks):
        return
    _segment_kernel[(len(blocks), kv_heads)](
        q,
        k_cache,
        v_cache,
        out,
        lse,
        tables,
        segments,
        blocks,
        q.stride(0),
        tables.stride(0),
        q.shape[0],
        scale,
        softcap,
        window,
        KV_HEADS=kv_heads,
        GROUP=q.shape[1] // kv_heads,
        D=width,
        P=k_cache.shape[1],
        BLOCK_M=block_m,
        BLOCK_N=block_n,
        BLOCK_D=max(16, triton.next_power_of_2(width)),
        SOFTCAP=bool(softcap),
        WINDOW=bool(window),
        num_warps=warps,
        num_stages=stages,
    )
