"""Rotary position embedding (Su et al., arXiv 2104.09864) in the half-split layout of Hugging Face checkpoints.

y[:D/2] = x[:D/2]·cos − x[D/2:]·sin         y[D/2:] = x[D/2:]·cos + x[:D/2]·sin
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate x [T, H, D] by the angles of its T positions; cos and sin [T, 1, D/2] of x's dtype."""
    first, second = x.chunk(2, dim=-1)
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    half = x.shape[-1] // 2
    torch.sub(first * cos, second * sin, out=out[..., :half])
    torch.add(second * cos, first * sin, out=out[..., half:])
    return out
