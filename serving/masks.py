"""Choosing tokens under the masks of constraints."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from spark_llm.kernels.dispatch import use_triton
from spark_llm.kernels.masked_argmax import masked_argmax
from spark_llm.serving.choices import Mask
from spark_llm.serving.sampling import Draw, sample
from torch import Tensor


def choose(logits: Tensor, masks: dict[int, Mask], draws: Sequence[Draw]) -> list[int]:
    """One allowed token per row of logits [n, vocab] (float32, overwritten); rows without a mask may take any."""
    if masks and use_triton(logits) and all(draw.temperature == 0 for draw in draws):
        rows_of = _rows_of(masks)
        mask_of = np.full(len(logits), -1)
        for i, rows in enumerate(rows_of.values()):
            mask_of[rows] = i
        distinct = np.stack([masks[rows[0]] for rows in rows_of.values()])
        on_device = (torch.from_numpy(array).to(logits.device) for array in (distinct, mask_of))
        return masked_argmax(logits, *on_device).tolist()
    apply_masks(logits, masks)
    return sample(logits, draws)


def apply_masks(logits: Tensor, masks: dict[int, Mask]) -> None:
    """Set logits [n, vocab] of tokens that a row's mask forbids to -inf, in place.

    Rows with the same mask (not only an equal one) are masked together: the bits of a mask are unpacked once.
    """
    rows_of = _rows_of(masks)
    if not rows_of:
        return
    distinct = np.stack([masks[rows[0]] for rows in rows_of.values()])
    bits = np.unpackbits(distinct.view(np.uint8), axis=1, count=logits.shape[1], bitorder="little")
    forbidden = torch.from_numpy(bits == 0).to(logits.device)
    if len(rows_of) == 1 and len(masks) == len(logits):
        logits.masked_fill_(forbidden, -torch.inf)
        return
    rows = [row for group in rows_of.values() for row in group]
    mask_of = np.repeat(np.arange(len(rows_of)), [len(group) for group in rows_of.values()])
    chosen = forbidden[torch.from_numpy(mask_of).to(logits.device)]
    if len(rows) == len(logits):
        logits.masked_fill_(chosen[torch.tensor(rows, device=logits.device).argsort()], -torch.inf)
    else:
        at = torch.tensor(rows, device=logits.device)
        logits[at] = logits[at].masked_fill(chosen, -torch.inf)


def _rows_of(masks: dict[int, Mask]) -> dict[int, list[int]]:
    """The rows of each distinct mask object."""
    rows_of: dict[int, list[int]] = {}
    for row, mask in masks.items():
        rows_of.setdefault(id(mask), []).append(row)
    return rows_of
