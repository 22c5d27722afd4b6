"""Rotary position embedding (Su et al., arXiv 2104.09864) in the half-split layout of Hugging Face checkpoints.

y[:D/2] = x[:D/2]·cos − x[D/2:]·sin         y[D/2:] = x[D/2:]·cos + x[:D/2]·sin
"""

from __future__ import annotations

import torch
from spark_llm.kernels.dispatch import use_compiled, use_triton
from torch import Tensor


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate x [T, H, D] by the angles of its T positions; cos and sin [T, 1, D/2] of x's dtype."""
    if use_triton(x):
        from spark_llm.kernels.gpu.rotary import rotate as on_gpu

        return on_gpu(x, cos, sin)
    if use_compiled(x):
        from spark_llm.kernels.cpu.pointwise import rotate as compiled

        return compiled(x, cos, sin)
    return rotate_reference(x, cos, sin)


def rotate_reference(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`rotate` by torch's operators."""
    first, second = x.chunk(2, dim=-1)
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    half = x.shape[-1] // 2
    torch.sub(first * cos, second * sin, out=out[..., :half])
    torch.add(second * cos, first * sin, out=out[..., half:])
    return out
