"""Root-mean-square normalization (Zhang and Sennrich, arXiv 1910.07467), alone and fused with the residual sum.

y = x / sqrt(mean(x²) + eps) · weight       computed in float32, rounded once
"""

from __future__ import annotations

import torch.nn.functional as F
from spark_llm.kernels.dispatch import use_compiled, use_triton
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Normalize the last dimension; x [..., D], weight [D]."""
    if use_triton(x):
        from spark_llm.kernels.gpu.rms_norm import rms_norm as on_gpu

        return on_gpu(x, weight, eps)
    if use_compiled(x):
        from spark_llm.kernels.cpu.pointwise import rms_norm as compiled

        return compiled(x, weight, eps)
    return rms_norm_reference(x, weight, eps)


def rms_norm_reference(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`rms_norm` by torch's operator."""
    return F.rms_norm(x, weight.shape, weight, eps)


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return `rms_norm(x + residual)` and the sum, which is the next residual."""
    if use_triton(x):
        from spark_llm.kernels.gpu.rms_norm import add_rms_norm as on_gpu

        return on_gpu(x, residual, weight, eps)
    if use_compiled(x):
        from spark_llm.kernels.cpu.pointwise import add_rms_norm as compiled

        return compiled(x, residual, weight, eps)
    return add_rms_norm_reference(x, residual, weight, eps)


def add_rms_norm_reference(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """`add_rms_norm` by torch's operators."""
    total = x + residual
    return rms_norm_reference(total, weight, eps), total
