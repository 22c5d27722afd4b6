"""The gate of a SwiGLU feed-forward layer (Shazeer, arXiv 2002.05202): silu(gate) · up."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def gelu_and_mul(gate_up: Tensor) -> Tensor:
    """`silu_and_mul` with the GELU's approximation by tanh in place of SiLU (GeGLU)."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.gelu(gate, approximate="tanh").mul_(up)


def silu_and_mul(gate_up: Tensor) -> Tensor:
    """Map [T, 2·I], the gate's columns first, to [T, I]."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate).mul_(up)
