"""Muon, the optimizer of the layers' matrices: a momentum step made orthogonal.

Keller Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024. All singular values of a step
are about equal, so that directions which few examples ask for are learned as fast as common ones.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn


def orthogonal(steps: Tensor, rounds: int = 5) -> Tensor:
    """Bring the singular values of matrices [n, rows, columns] near 1 (quintic Newton-Schulz iteration, in bf16)."""
    x = steps.bfloat16()
    if turned := x.shape[1] > x.shape[2]:
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(rounds):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return (x.mT if turned else x).to(steps.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum (Nesterov) whose steps are made orthogonal; matrices of one shape go together."""

    def __init__(
        self, matrices: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, decay: float = 0.01
    ) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """One step along the gradients."""
        for group in self.param_groups:
            shapes = defaultdict(list)
            for matrix in group["params"]:
                shapes[matrix.shape].append(matrix)
            for (rows, columns), matrices in shapes.items():
                gradients = torch.stack([matrix.grad for matrix in matrices])
                for matrix, gradient in zip(matrices, gradients, strict=True):
                    state = self.state[matrix]
                    mean = state.setdefault("mean", torch.zeros_like(matrix))
                    mean.lerp_(gradient, 1 - group["momentum"])
                    gradient.lerp_(mean, group["momentum"])
                size = group["lr"] * max(1.0, rows / columns) ** 0.5
                for matrix, update in zip(matrices, orthogonal(gradients), strict=True):
                    matrix.mul_(1 - group["lr"] * group["decay"]).sub_(update, alpha=size)
