"""Root-mean-square normalization (Zhang and Sennrich, arXiv 1910.07467), alone and fused with the residual sum.

y = x / sqrt(mean(x²) + eps) · weight       computed in float32, rounded once
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Normalize the last dimension; x [..., D], weight [D]."""
    return F.rms_norm(x, weight.shape, weight, eps)


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return `rms_norm(x + residual)` and the sum, which is the next residual."""
    total = x + residual
    return rms_norm(total, weight, eps), total
