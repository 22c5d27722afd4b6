"""The next token of each row: the most likely one that a bit mask allows, or a draw from those.

A draw at a temperature is the argmax of logits / temperature + noise of Gumbel's distribution (Maddison et al., arXiv
1411.0030), in one pass as the greedy choice is. A token's noise is a hash of the row's key and the token, so that it
depends on nothing else in the batch. With `top_p` the draw is from the fewest tokens whose probabilities reach it
(Holtzman et al., arXiv 1904.09751).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from spark_llm.kernels.dispatch import use_compiled_sampling, use_triton
from torch import Tensor

BISECTIONS = 30
"""Halvings of the interval in which the least probability of a nucleus is sought."""
_WORD = 0xFFFFFFFF


def masked_sample(
    logits: Tensor, masks: Tensor, mask_of: Tensor, temperature: Tensor, top_p: Tensor | None, keys: Tensor
) -> Tensor:
    """One token per row; the first of equally good ones.

    Parameters
    ----------
    logits : [n, vocab] in float32
        Overwritten.
    masks : [m, words] in int32
        Bit t % 32 of word t // 32 allows token t; m is at least 1.
    mask_of : [n] in int64
        The mask of each row, -1 for none.
    temperature : [n] in float32
        0 takes the most likely token.
    top_p : [n] in float32, optional
    keys : [n] in int64
        Of the noise: see `noise_keys`.

    Returns
    -------
    Tensor
        [n] in int64.
    """
    if use_compiled_sampling(logits):
        from spark_llm.kernels.cpu.masked_sample import masked_sample as compiled

        return compiled(logits.contiguous(), masks, mask_of, temperature, top_p, keys)
    if use_triton(logits):
        from spark_llm.kernels.gpu.masked_sample import masked_sample as on_gpu

        if top_p is not None:
            cut = (temperature > 0) & (top_p < 1)
            logits[cut] = nucleus(_allowed(logits[cut], masks, mask_of[cut]), temperature[cut], top_p[cut])
        return on_gpu(logits.contiguous(), masks, mask_of, temperature, keys)
    return masked_sample_reference(logits, masks, mask_of, temperature, top_p, keys)


def masked_sample_reference(
    logits: Tensor, masks: Tensor, mask_of: Tensor, temperature: Tensor, top_p: Tensor | None, keys: Tensor
) -> Tensor:
    """`masked_sample` by its definition."""
    logits = _allowed(logits, masks, mask_of)
    drawn = temperature > 0
    if bool(drawn.any()):
        warmth = temperature[drawn]
        kept = logits[drawn] if top_p is None else nucleus(logits[drawn], warmth, top_p[drawn])
        noise = gumbel(keys[drawn], logits.shape[1])
        logits[drawn] = kept / warmth[:, None] + noise
    return logits.argmax(-1)


def nucleus(logits: Tensor, temperature: Tensor, top_p: Tensor) -> Tensor:
    """The logits [n, vocab] of each row's nucleus, -inf outside; bisection finds its least weight without sorting."""
    weights = torch.softmax(logits / temperature[:, None], -1)
    weights = weights / weights.amax(-1, keepdim=True)
    wanted = top_p[:, None].double() * weights.sum(-1, keepdim=True, dtype=torch.float64)
    low = torch.zeros_like(top_p)[:, None]
    high = torch.ones_like(low)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        enough = torch.where(weights >= middle, weights, 0).sum(-1, keepdim=True, dtype=torch.float64) >= wanted
        low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
    everything = (top_p >= 1)[:, None]
    return logits.masked_fill((weights < low) & ~everything, -torch.inf)


def gumbel(keys: Tensor, vocab: int) -> Tensor:
    """Noise [n, vocab] in float32 of the tokens of each row's key [n]."""
    tokens = torch.arange(vocab, device=keys.device)
    first, second = (keys & _WORD)[:, None], ((keys >> 32) & _WORD)[:, None]
    bits = _mix(_mix((tokens * 0x9E3779B1 + first) & _WORD) ^ second)
    uniform = ((bits >> 9).float() + 0.5) * 2.0**-23
    return -torch.log(-torch.log(uniform))


def noise_keys(seeds: NDArray[np.uint64], indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """A key for each seed and index of a token (SplitMix64; Steele et al., doi 10.1145/2660193.2660195)."""
    spread = indices.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return _split_mix(_split_mix(seeds) + spread).view(np.int64)


def _split_mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _mix(x: Tensor) -> Tensor:
    """A permutation of 32-bit words that spreads every bit over all (Wellons' lowbias32)."""
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _WORD
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _WORD
    return x ^ (x >> 16)


def _allowed(logits: Tensor, masks: Tensor, mask_of: Tensor) -> Tensor:
    """Logits, -inf where a row's mask forbids the token."""
    if not bool((mask_of >= 0).any()):
        return logits
    bits = (masks[..., None] >> torch.arange(32, dtype=torch.int32, device=masks.device)) & 1
    allowed = bits.flatten(1)[:, : logits.shape[1]].bool()[mask_of.clamp(min=0)] | (mask_of < 0)[:, None]
    return logits.masked_fill(~allowed, -torch.inf)
