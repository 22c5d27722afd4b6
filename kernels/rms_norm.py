"""Root-mean-square normalization (Zhang and Sennrich, arXiv 1910.07467), alone and fused with the residual sum.

y = x / sqrt(mean(x²) + eps) · weight       computed in float32, rounded to x's dtype before the weight
"""

from __future__ import annotations

import torch
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Normalize the last dimension; x [..., D], weight [D]."""
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype) * weight


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return `rms_norm(x + residual)` and the sum, which is the next residual."""
    total = x + residual
    return rms_norm(total, weight, eps), total
