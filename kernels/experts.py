"""A feed-forward layer of experts: each token goes through the few that a router chooses for it (arXiv 2401.04088)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def experts(
    x: Tensor,
    scores: Tensor,
    gate_up: Tensor,
    down: Tensor,
    *,
    chosen: int,
    normalized: bool,
    activation: Callable[[Tensor], Tensor],
) -> Tensor:
    """The weighted sum of each token's experts.

    Parameters
    ----------
    x : [T, H]
    scores : [T, E]
        The router's logits; their softmax weighs the `chosen` most likely experts, scaled to sum 1 if `normalized`.
    gate_up : [E, 2·I, H]
    down : [E, H, I]
    activation : function
        Maps [n, 2·I] to [n, I].

    Returns
    -------
    Tensor
        [T, H] of x's dtype. Tokens are sorted by expert, so that each expert that is chosen multiplies once.
    """
    weights, picked = _route(scores, chosen, normalized)
    order = picked.flatten().argsort(stable=True)
    tokens = order // chosen
    counts = picked.flatten().bincount(minlength=len(gate_up)).tolist()
    rows = x[tokens]
    outs = [
        activation(part @ gate_up[e].T) @ down[e].T
        for e, part in enumerate(torch.split_with_sizes(rows, counts))
        if len(part)
    ]
    weighted = torch.cat(outs).float() * weights.flatten()[order, None]
    return torch.zeros(x.shape, dtype=torch.float32, device=x.device).index_add_(0, tokens, weighted).to(x.dtype)


def experts_reference(
    x: Tensor,
    scores: Tensor,
    gate_up: Tensor,
    down: Tensor,
    *,
    chosen: int,
    normalized: bool,
    activation: Callable[[Tensor], Tensor],
) -> Tensor:
    """`experts` by its formula, in float32, every expert for every token."""
    weights, picked = _route(scores, chosen, normalized)
    every = torch.zeros_like(scores, dtype=torch.float32).scatter_(1, picked, weights)
    outs = [activation(x.float() @ g.float().T) @ d.float().T for g, d in zip(gate_up, down, strict=True)]
    return torch.einsum("te,eth->th", every, torch.stack(outs)).to(x.dtype)


def _route(scores: Tensor, chosen: int, normalized: bool) -> tuple[Tensor, Tensor]:
    """Weights and numbers [T, chosen] of each token's experts."""
    weights, picked = torch.softmax(scores.float(), -1).topk(chosen, -1)
    return weights / weights.sum(-1, keepdim=True) if normalized else weights, picked
