"""Matrix products of a step's rows, with weights that were packed when they were loaded."""

from __future__ import annotations

import torch
from spark_llm.kernels.dispatch import use_compiled_products
from spark_llm.kernels.silu_and_mul import GATES
from torch import Tensor

PACKED_FOR = 2048
"""Rows of the products for which oneDNN chooses the order of packed weights."""


def pack(weight: Tensor, *, gated: bool = False) -> Tensor:
    """The weight [out, in] in the order in which this machine multiplies it; `gated`: for `gated_linear`.

    That are panels of `cpu/linear.c`, oneDNN's blocks where there is AMX or no compiled kernel, or the weight as it is.
    """
    if weight.device.type != "cpu" or weight.dtype != torch.bfloat16:
        return weight
    if use_compiled_products(weight):
        from spark_llm.kernels.cpu.linear import to_panels

        return to_panels(weight, gated=gated)
    if torch._C._has_mkldnn and torch.ops.mkldnn._is_mkldnn_bf16_supported():  # on other CPUs it refuses the product
        packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, PACKED_FOR)
        return packed
    return weight


def rows_of(weight: Tensor, first: int, last: int) -> Tensor | None:
    """Rows first:last of a weight that `pack` returned, not copied; None where its order does not allow it."""
    if weight.is_mkldnn:
        return None
    if weight.dtype == torch.int32:
        panel = weight.shape[2]
        return None if first % panel or last % panel else weight[first // panel : last // panel]
    return weight[first:last]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, added: Tensor | None = None) -> Tensor:
    """x [T, in] times a weight that `pack` returned, plus `added` [T, out]."""
    if weight.dtype == torch.int32:
        from spark_llm.kernels.cpu.linear import linear as compiled

        return compiled(x, weight, bias, added=added)
    if added is not None:
        return linear(x, weight, bias) + added
    if weight.is_mkldnn:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return product
    return torch.nn.functional.linear(x, weight, bias)


def gated_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, activation: str = "silu") -> Tensor:
    """activation(gate) · up [T, I] of gate and up = x · weight, [2·I, in] as packed for this, the gate's rows first."""
    if weight.dtype == torch.int32:
        from spark_llm.kernels.cpu.linear import linear as compiled

        return compiled(x, weight, bias, activation=activation)
    return GATES[activation](linear(x, weight, bias))


def linear_reference(x: Tensor, weight: Tensor, bias: Tensor | None = None, added: Tensor | None = None) -> Tensor:
    """`linear` of a weight as it is."""
    product = torch.nn.functional.linear(x, weight, bias)
    return product if added is None else product + added


def gated_linear_reference(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, activation: str = "silu"
) -> Tensor:
    """`gated_linear` of a weight as it is."""
    return GATES[activation](linear_reference(x, weight, bias))
