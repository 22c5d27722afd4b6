"""Greedy choice under bit masks: one program a row, which never writes the masked logits anywhere."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 4096


@triton.jit
def _masked_argmax_kernel(
    logits,  # [n, vocab]
    masks,  # [m, words]: bit t % 32 of word t // 32 allows token t
    mask_of,  # [n]: row of masks, or -1
    tokens,  # [n]
    vocab,
    words,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    mask = tl.load(mask_of + row).to(tl.int64)
    best, best_at = tl.full((), float("-inf"), tl.float32), tl.full((), 0, tl.int32)
    for start in range(0, vocab, BLOCK):
        at = start + tl.arange(0, BLOCK)
        inside = at < vocab
        values = tl.load(logits + row * vocab + at, mask=inside, other=float("-inf")).to(tl.float32)
        bits = tl.load(masks + tl.maximum(mask, 0) * words + at // 32, mask=inside, other=0)
        values = tl.where((((bits >> (at % 32)) & 1) != 0) | (mask < 0), values, float("-inf"))
        top = tl.max(values, axis=0)
        where = tl.min(tl.where(values == top, at, vocab), axis=0)  # the first of equal ones, as torch's argmax
        best_at = tl.where(top > best, where, best_at)
        best = tl.maximum(top, best)
    tl.store(tokens + row, best_at.to(tl.int64))


def masked_argmax(logits: Tensor, masks: Tensor, mask_of: Tensor) -> Tensor:
    """`kernels.masked_argmax.masked_argmax` of contiguous logits."""
    tokens = torch.empty(len(logits), dtype=torch.int64, device=logits.device)
    if len(logits):
        _masked_argmax_kernel[(len(logits),)](
            logits, masks, mask_of, tokens, logits.shape[1], masks.shape[1], BLOCK=BLOCK, num_warps=8
        )
    return tokens
