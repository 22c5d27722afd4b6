"""The inner loop of the attention kernels: rows of queries take in a run of paged keys, block by block.

Flash attention's running maximum, sum and accumulator (Dao, arXiv 2307.08691), in units of log 2.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def attend_keys(  # noqa: ANN201 - a Triton function
    acc,  # [BLOCK_M, BLOCK_D]
    total,  # [BLOCK_M]
    highest,  # [BLOCK_M]
    q,  # [BLOCK_M, BLOCK_D]
    k_cache,  # [pages, P, KV_HEADS, D]
    v_cache,
    table,
    begin,
    end,
    last,
    limit,  # [BLOCK_M]: the last key that each row sees
    head,
    scale,
    softcap,
    window,
    KV_HEADS: tl.constexpr,
    D: tl.constexpr,
    P: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    SOFTCAP: tl.constexpr,
    MASKED: tl.constexpr,
    WINDOW: tl.constexpr,
):
    """Take in keys begin:end of a table that ends at `last`; without MASKED, all of them are seen by all rows."""
    at_d = tl.arange(0, BLOCK_D)
    for start in range(begin, end, BLOCK_N):
        keys = start + tl.arange(0, BLOCK_N)
        inside = keys < last
        page = tl.load(table + keys // P, mask=inside, other=0).to(tl.int64)
        place = ((page * P + keys % P) * KV_HEADS + head) * D
        held = inside[:, None] & (at_d < D)[None, :]
        k = tl.load(k_cache + place[:, None] + at_d[None, :], mask=held, other=0.0)
        scores = tl.dot(q, tl.trans(k)) * scale
        if SOFTCAP:
            scores = softcap * (2.0 * tl.sigmoid(2.0 * scores / softcap) - 1.0)
        scores = scores * 1.4426950408889634
        if MASKED:
            visible = inside[None, :] & (keys[None, :] <= limit[:, None])
            if WINDOW:
                visible = visible & (keys[None, :] > limit[:, None] - window)
            scores = tl.where(visible, scores, float("-inf"))
        top = tl.maximum(highest, tl.max(scores, axis=1))
        safe = tl.where(top == float("-inf"), 0.0, top) if MASKED else top
        weights = tl.exp2(scores - safe[:, None])
        decay = tl.exp2(highest - safe)
        total = total * decay + tl.sum(weights, axis=1)
        v = tl.load(v_cache + place[:, None] + at_d[None, :], mask=held, other=0.0)
        acc = acc * decay[:, None] + tl.dot(weights.to(v.dtype), v)
        highest = top
    return acc, total, highest
