"""The most likely token of each row that the row's bit mask allows."""

from __future__ import annotations

import torch
from spark_llm.kernels.dispatch import use_triton
from torch import Tensor


def masked_argmax(logits: Tensor, masks: Tensor, mask_of: Tensor) -> Tensor:
    """The first of the greatest allowed logits of each row.

    Parameters
    ----------
    logits : [n, vocab] in float32
    masks : [m, words] in int32
        Bit t % 32 of word t // 32 allows token t; m is at least 1.
    mask_of : [n]
        The mask of each row, -1 for none.

    Returns
    -------
    Tensor
        [n] in int64.
    """
    if use_triton(logits):
        from spark_llm.kernels.gpu.masked_argmax import masked_argmax as on_gpu

        return on_gpu(logits.contiguous(), masks, mask_of)
    return masked_argmax_reference(logits, masks, mask_of)


def masked_argmax_reference(logits: Tensor, masks: Tensor, mask_of: Tensor) -> Tensor:
    """`masked_argmax` by its definition."""
    bits = (masks[..., None] >> torch.arange(32, dtype=torch.int32, device=masks.device)) & 1
    allowed = bits.flatten(1)[:, : logits.shape[1]].bool()[mask_of.clamp(min=0)] | (mask_of < 0)[:, None]
    return logits.masked_fill(~allowed, -torch.inf).argmax(-1)
