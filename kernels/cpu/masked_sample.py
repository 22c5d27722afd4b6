"""`kernels.masked_sample.masked_sample` by the kernel of `masked_sample.c`."""

from __future__ import annotations

import torch
from spark_llm.kernels.cpu import call
from torch import Tensor


def masked_sample(
    logits: Tensor, masks: Tensor, mask_of: Tensor, temperature: Tensor, top_p: Tensor | None, keys: Tensor
) -> Tensor:
    tokens = torch.empty(len(logits), dtype=torch.int64)
    call("masked_sample", logits, masks, mask_of, temperature, top_p, keys, tokens, *logits.shape, masks.shape[1])
    return tokens
