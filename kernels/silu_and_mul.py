"""The gate of a SwiGLU feed-forward layer (Shazeer, arXiv 2002.05202): silu(gate) · up."""

from __future__ import annotations

import torch.nn.functional as F
from spark_llm.kernels.dispatch import use_compiled, use_triton
from torch import Tensor


def gelu_and_mul(gate_up: Tensor) -> Tensor:
    """`silu_and_mul` with the GELU's approximation by tanh in place of SiLU (GeGLU)."""
    if use_triton(gate_up):
        from spark_llm.kernels.gpu.silu_and_mul import gelu_and_mul as on_gpu

        return on_gpu(gate_up)
    return gelu_and_mul_reference(gate_up)


def gelu_and_mul_reference(gate_up: Tensor) -> Tensor:
    """`gelu_and_mul` by torch's operators."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.gelu(gate, approximate="tanh").mul_(up)


def silu_and_mul(gate_up: Tensor) -> Tensor:
    """Map [T, 2·I], the gate's columns first, to [T, I]."""
    if use_triton(gate_up):
        from spark_llm.kernels.gpu.silu_and_mul import silu_and_mul as on_gpu

        return on_gpu(gate_up)
    if use_compiled(gate_up):
        from spark_llm.kernels.cpu.pointwise import silu_and_mul as compiled

        return compiled(gate_up)
    return silu_and_mul_reference(gate_up)


def silu_and_mul_reference(gate_up: Tensor) -> Tensor:
    """`silu_and_mul` by torch's operators."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate).mul_(up)


GATES = {"silu": silu_and_mul, "gelu_tanh": gelu_and_mul}
"""By the names that configurations use."""
