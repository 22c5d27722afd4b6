"""`kernels.linear` by the kernel of `linear.c`."""

from __future__ import annotations

import torch
from spark_llm.kernels.cpu import call
from torch import Tensor

PANEL = 64
"""Of `linear.c`: columns whose weights are packed together."""
GATES = {"": 0, "silu": 1, "gelu_tanh": 2}


def to_panels(weight: Tensor, *, gated: bool) -> Tensor:
    """Pack [N, K] as panels [N / 64, K / 2, 64] of pairs along K, in int32; `gated`: each 32 rows of gate, 32 of up."""
    width = weight.shape[1]
    order = weight.view(2, -1, PANEL // 2, width).transpose(0, 1) if gated else weight
    panels = order.reshape(-1, PANEL, width // 2, 2).transpose(1, 2)
    return panels.contiguous().view(torch.int32).squeeze(-1)


def linear(
    x: Tensor, panels: Tensor, bias: Tensor | None, *, activation: str = "", added: Tensor | None = None
) -> Tensor:
    """x [T, K] times the packed weights, plus `added` [T, N]; with an activation, of gates and what they gate."""
    x, (count, depth, width) = x.contiguous(), panels.shape
    assert (x.dtype, x.shape[1]) == (torch.bfloat16, 2 * depth), "an input of another shape than the weights'"
    out = torch.empty((len(x), count * width // (2 if activation else 1)), dtype=x.dtype)
    if added is not None:
        added = added.contiguous()
        assert added.shape == out.shape, "what is added has another shape than the product"
    call("linear", x, panels, bias, added, out, len(x), count, depth, out.shape[1], GATES[activation])
    return out
