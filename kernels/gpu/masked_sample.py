"""Greedy choices and draws under bit masks: one program a row, which never writes masked or noisy logits anywhere."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 4096


@triton.jit
def _mix(x):
    x = (x ^ (x >> 16)) * 0x7FEB352D
    x = (x ^ (x >> 15)) * 0x846CA68B
    return x ^ (x >> 16)


@triton.jit
def _masked_sample_kernel(
    logits,  # [n, vocab]
    masks,  # [m, words]: bit t % 32 of word t // 32 allows token t
    mask_of,  # [n]: row of masks, or -1
    temperature,  # [n]
    keys,  # [n, 2]: low and high words of a row's key
    tokens,  # [n]
    vocab,
    words,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    mask = tl.load(mask_of + row).to(tl.int64)
    warmth = tl.load(temperature + row)
    first, second = tl.load(keys + 2 * row).to(tl.uint32), tl.load(keys + 2 * row + 1).to(tl.uint32)
    best, best_at = tl.full((), float("-inf"), tl.float32), tl.full((), 0, tl.int32)
    for start in range(0, vocab, BLOCK):
        at = start + tl.arange(0, BLOCK)
        inside = at < vocab
        values = tl.load(logits + row * vocab + at, mask=inside, other=float("-inf")).to(tl.float32)
        bits = tl.load(masks + tl.maximum(mask, 0) * words + at // 32, mask=inside, other=0)
        values = tl.where((((bits >> (at % 32)) & 1) != 0) | (mask < 0), values, float("-inf"))
        if warmth > 0:
            hashed = _mix(_mix(at.to(tl.uint32) * 0x9E3779B1 + first) ^ second)
            uniform = ((hashed >> 9).to(tl.float32) + 0.5) * 1.1920928955078125e-07
            values = values / warmth - tl.log(-tl.log(uniform))
        top = tl.max(values, axis=0)
        where = tl.min(tl.where(values == top, at, vocab), axis=0)  # the first of equal ones, as torch's argmax
        best_at = tl.where(top > best, where, best_at)
        best = tl.maximum(top, best)
    tl.store(tokens + row, best_at.to(tl.int64))


def masked_sample(logits: Tensor, masks: Tensor, mask_of: Tensor, temperature: Tensor, keys: Tensor) -> Tensor:
    """`kernels.masked_sample.masked_sample` of contiguous logits that are cut to their nuclei already."""
    tokens = torch.empty(len(logits), dtype=torch.int64, device=logits.device)
    if len(logits):
        words = keys.contiguous().view(torch.int32)  # little endian: the low word first
        shape = logits.shape[1], masks.shape[1]
        _masked_sample_kernel[(len(logits),)](
            logits, masks, mask_of, temperature, words, tokens, *shape, BLOCK=BLOCK, num_warps=8
        )
    return tokens
