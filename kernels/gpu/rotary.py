"""Rotary position embedding: one program a token, all its heads."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _rotate_kernel(
    x,  # [T, H, D], rows strided
    cos,  # [T, D / 2]
    sin,  # [T, D / 2]
    out,  # [T, H, D]
    row_stride,
    heads,
    HALF: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    head, at = tl.arange(0, BLOCK_H), tl.arange(0, BLOCK_D)
    inside = at < HALF
    angles = row * HALF + at
    c = tl.load(cos + angles, mask=inside, other=0.0).to(tl.float32)[None, :]
    s = tl.load(sin + angles, mask=inside, other=0.0).to(tl.float32)[None, :]
    held = (head < heads)[:, None] & inside[None, :]
    source = x + row * row_stride + head[:, None] * (2 * HALF) + at[None, :]
    target = out + (row * heads + head[:, None]) * (2 * HALF) + at[None, :]
    first = tl.load(source, mask=held, other=0.0).to(tl.float32)
    second = tl.load(source + HALF, mask=held, other=0.0).to(tl.float32)
    tl.store(target, (first * c - second * s).to(out.dtype.element_ty), mask=held)
    tl.store(target + HALF, (second * c + first * s).to(out.dtype.element_ty), mask=held)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`kernels.rotary.rotate`; the heads of a row of x [T, H, D] lie side by side."""
    count, heads, width = x.shape
    assert x.stride()[1:] == (width, 1), "the heads of a row must lie side by side"
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if count:
        half = width // 2
        _rotate_kernel[(count,)](
            x,
            cos,
            sin,
            out,
            x.stride(0),
            heads,
            HALF=half,
            BLOCK_H=triton.next_power_of_2(heads),
            BLOCK_D=triton.next_power_of_2(half),
        )
    return out
