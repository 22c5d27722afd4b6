"""The gate of a SwiGLU or GeGLU feed-forward layer."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


@triton.jit
def _gate_kernel(gate_up, out, width, GELU: tl.constexpr, BLOCK: tl.constexpr):
    row, at = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < width
    gate = tl.load(gate_up + row * 2 * width + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * width + width + at, mask=inside, other=0.0).to(tl.float32)
    if GELU:  # tanh(x) = 2 sigmoid(2x) - 1
        inner = 1.5957691216057308 * (gate + 0.044715 * gate * gate * gate)
        gated = gate * tl.sigmoid(inner)
    else:
        gated = gate * tl.sigmoid(gate)
    tl.store(out + row * width + at, (gated * up).to(out.dtype.element_ty), mask=inside)


def silu_and_mul(gate_up: Tensor) -> Tensor:
    """`kernels.silu_and_mul.silu_and_mul` of contiguous [T, 2·I]."""
    return _launch(gate_up, gelu=False)


def gelu_and_mul(gate_up: Tensor) -> Tensor:
    """`kernels.silu_and_mul.gelu_and_mul` of contiguous [T, 2·I]."""
    return _launch(gate_up, gelu=True)


def _launch(gate_up: Tensor, *, gelu: bool) -> Tensor:
    count, width = gate_up.shape[0], gate_up.shape[1] // 2
    out = torch.empty((count, width), dtype=gate_up.dtype, device=gate_up.device)
    if count:
        _gate_kernel[(count, triton.cdiv(width, BLOCK))](gate_up, out, width, GELU=gelu, BLOCK=BLOCK, num_warps=4)
    return out
