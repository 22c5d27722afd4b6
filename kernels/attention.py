"""Scaled dot-product attention that also returns its log-sum-exp, and the merge of two such partial results.

    out = softmax(q kᵀ · scale + mask) v        lse = log Σ exp(q kᵀ · scale + mask)

Two partial attentions over disjoint keys combine exactly through their log-sum-exp (Milakov and Gimelshein,
arXiv 1805.02867; used for shared prefixes in Hydragen, arXiv 2402.05099).
"""

from __future__ import annotations

import torch
from torch import Tensor


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float,
    mask: Tensor | None = None,
    causal: bool = False,
    softcap: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Attention with grouped-query heads.

    Parameters
    ----------
    q : [B, Hq, Lq, D]
    k, v : [B, Hkv, Lk, D]
        Hkv divides Hq.
    mask : [B, 1, Lq, Lk], optional
        Added to the scores, of q's dtype; every query must see at least one key.
    causal : bool
        Query i sees keys 0..i; needs Lq == Lk and no mask.
    softcap : float
        If not 0, scores become softcap · tanh(scores / softcap) before the mask.

    Returns
    -------
    out : [B, Hq, Lq, D] of q's dtype
    lse : [B, Hq, Lq] in float32
    """
    if q.device.type == "cpu" and not softcap:
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, 0.0, causal, attn_mask=mask, scale=scale
        )
    return attend_reference(q, k, v, scale=scale, mask=mask, causal=causal, softcap=softcap)


def attend_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float,
    mask: Tensor | None = None,
    causal: bool = False,
    softcap: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """`attend` by its formula, in float32, on any device."""
    groups = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(groups, dim=1).float() for x in (k, v))
    scores = q.float() @ k.transpose(-1, -2) * scale
    if softcap:
        scores = torch.tanh(scores / softcap) * softcap
    if causal:
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(hidden, -torch.inf)
    if mask is not None:
        scores = scores + mask.float()
    lse = scores.logsumexp(-1)
    return (torch.exp(scores - lse[..., None]) @ v).to(q.dtype), lse


def merge_states(out: Tensor, lse: Tensor, other_out: Tensor, other_lse: Tensor) -> None:
    """Merge a partial attention into another of the same queries over other keys, in place.

    Parameters
    ----------
    out : [..., D] in float32
    lse : [...] in float32
    other_out, other_lse : of the same shapes
    """
    merged = torch.logaddexp(lse, other_lse)
    out.mul_((lse - merged).exp_()[..., None]).add_(other_out * (other_lse - merged).exp_()[..., None])
    lse.copy_(merged)
