"""RMSNorm, alone and with the residual sum: one program a row, computed in float32."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _rms_norm_kernel(
    x,  # [T, H, D], rows and heads strided
    residual,  # [T, D] or unused
    weight,  # [D]
    out,  # [T, H, D]
    total,  # [T, D] or unused
    row_stride,
    head_stride,
    heads,
    width,
    eps,
    ADD: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    at = tl.arange(0, BLOCK)
    inside = at < width
    values = tl.load(x + row * row_stride + head * head_stride + at, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        values += tl.load(residual + row * width + at, mask=inside, other=0.0).to(tl.float32)
        # the next layer adds to the rounded sum, and so does the norm see it
        values = values.to(total.dtype.element_ty).to(tl.float32)
        tl.store(total + row * width + at, values.to(total.dtype.element_ty), mask=inside)
    scale = 1.0 / tl.sqrt(tl.sum(values * values, axis=0) / width + eps)
    scaled = values * scale * tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + (row * heads + head) * width + at, scaled.to(out.dtype.element_ty), mask=inside)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`kernels.rms_norm.rms_norm` of x [T, D] or [T, H, D]."""
    rows = x if x.dim() == 3 else x[:, None]
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    _launch(rows, None, weight, out, None, eps)
    return out


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """`kernels.rms_norm.add_rms_norm` of contiguous x, residual [T, D]."""
    out, total = torch.empty_like(x), torch.empty_like(x)
    _launch(x[:, None], residual, weight, out, total, eps)
    return out, total


def _launch(x: Tensor, residual: Tensor | None, weight: Tensor, out: Tensor, total: Tensor | None, eps: float) -> None:
    count, heads, width = x.shape
    if not count:
        return
    block = triton.next_power_of_2(width)
    _rms_norm_kernel[(count, heads)](
        x,
        x if residual is None else residual,
        weight,
        out,
        out if total is None else total,
        x.stride(0),
        x.stride(1),
        heads,
        width,
        eps,
        ADD=residual is not None,
        BLOCK=block,
        num_warps=min(16, max(1, block // 256)),
    )
