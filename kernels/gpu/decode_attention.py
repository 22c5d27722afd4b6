"""Decode attention over a paged cache with split keys: each program takes a share of one request's keys.

One new token of a request has too little work for a GPU; its keys are cut into splits whose partial results are merged
through their log-sum-exp (flash decoding). The query heads of a KV head share its keys in one block.
"""

from __future__ import annotations

import triton
import triton.language as tl
from spark_llm.kernels.gpu.attend_keys import attend_keys
from torch import Tensor

BLOCK_N = 64


@triton.jit
def _decode_kernel(
    q,  # [R, H, D], rows strided
    k_cache,  # [pages, P, KV_HEADS, D]
    v_cache,
    out,  # [L, R, H, D]
    lse,  # [L, R, H]
    tables,  # [R, n]
    firsts,  # [R]
    lengths,  # [R]: keys firsts:lengths are seen; none where equal
    q_stride,
    table_stride,
    rows,
    scale,
    softcap,
    window,
    SPLITS: tl.constexpr,
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
    row, head, split = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    first, length = tl.load(firsts + row), tl.load(lengths + row)
    if WINDOW:
        first = tl.maximum(first, length - window)
    share = tl.cdiv(tl.cdiv(length - first, SPLITS), BLOCK_N) * BLOCK_N
    begin = first + split * share
    end = tl.minimum(begin + share, length)
    m, at_d = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_D)
    held = m < GROUP
    inside_d = at_d < D
    rows_q = tl.load(
        q + row * q_stride + (head * GROUP + m)[:, None] * D + at_d[None, :],
        mask=held[:, None] & inside_d[None, :],
        other=0.0,
    )
    acc = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    highest = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    limit = tl.zeros((BLOCK_M,), tl.int32) + (end - 1)
    acc, total, highest = attend_keys(
        acc, total, highest, rows_q, k_cache, v_cache, tables + row * table_stride, begin, end, end, limit, head,
        scale, softcap, window, KV_HEADS, D, P, BLOCK_N, BLOCK_D, SOFTCAP, True, False,
    )  # fmt: skip
    result = acc / tl.where(total > 0, total, 1.0)[:, None]
    place_out = (split * rows + row) * KV_HEADS * GROUP + head * GROUP + m
    tl.store(out + place_out[:, None] * D + at_d[None, :], result, mask=held[:, None] & inside_d[None, :])
    tl.store(lse + place_out, highest * 0.6931471805599453 + tl.log(total), mask=held)


def splits_for(rows: int, kv_heads: int, longest: int) -> int:
    """Splits that keep the processors of a large GPU busy twice over, of at least four blocks each."""
    wanted = -(-264 // max(1, rows * kv_heads))
    return max(1, min(wanted, longest // (4 * BLOCK_N), 64))


def decode_attention(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    tables: Tensor,
    firsts: Tensor,
    lengths: Tensor,
    out: Tensor,
    lse: Tensor,
    *,
    splits: int,
    scale: float,
    softcap: float = 0.0,
    window: int = 0,
) -> None:
    """Write attention of row r of q [R, H, D] over keys firsts[r]:lengths[r] of table r, in the first `splits` levels.

    `merge.merge_parts` merges the levels of out [L, R, H, D] (float32) and lse [L, R, H].
    """
    rows, heads, width = q.shape
    kv_heads = k_cache.shape[2]
    assert q.stride()[1:] == (width, 1), "the heads of a row must lie side by side"
    if not rows:
        return
    _decode_kernel[(rows, kv_heads, splits)](
        q,
        k_cache,
        v_cache,
        out,
        lse,
        tables,
        firsts,
        lengths,
        q.stride(0),
        tables.stride(0),
        rows,
        scale,
        softcap,
        window,
        SPLITS=splits,
        KV_HEADS=kv_heads,
        GROUP=heads // kv_heads,
        D=width,
        P=k_cache.shape[1],
        BLOCK_M=max(16, triton.next_power_of_2(heads // kv_heads)),
        BLOCK_N=BLOCK_N,
        BLOCK_D=max(16, triton.next_power_of_2(width)),
        SOFTCAP=bool(softcap),
        WINDOW=bool(window),
        num_warps=4,
        num_stages=3,
    )
