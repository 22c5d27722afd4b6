"""Merging partial attentions over disjoint keys through their log-sum-exp: one program a row and head."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _merge_kernel(
    parts,  # [S, T, H, D] in float32
    lse,  # [S, T, H] in float32, -inf where a part saw no key
    out,  # [T, H, D]
    count,
    rows,
    heads,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    at = tl.arange(0, BLOCK_D)
    inside = at < D
    place = row * heads + head
    highest = tl.full((), float("-inf"), tl.float32)
    for part in range(count):
        highest = tl.maximum(highest, tl.load(lse + part * rows * heads + place))
    highest = tl.where(highest == float("-inf"), 0.0, highest)  # a padding row, which sees nothing
    total, summed = tl.zeros((), tl.float32), tl.zeros((BLOCK_D,), tl.float32)
    for part in range(count):
        here = place + part * rows * heads  # place is 64 bits wide
        weight = tl.exp(tl.load(lse + here) - highest)
        values = tl.load(parts + here * D + at, mask=inside, other=0.0)
        summed += tl.where(weight > 0, weight * values, 0.0)
        total += weight
    result = summed / tl.where(total > 0, total, 1.0)
    tl.store(out + place * D + at, result.to(out.dtype.element_ty), mask=inside)


def merge_parts(parts: Tensor, lse: Tensor, out: Tensor) -> None:
    """Write the merged attention of parts [S, T, H, D] with lse [S, T, H] to out [T, H, D]."""
    count, rows, heads, width = parts.shape
    if rows:
        _merge_kernel[(rows, heads)](
            parts, lse, out, count, rows, heads, D=width, BLOCK_D=triton.next_power_of_2(width), num_warps=1
        )
