"""Choosing next tokens. A request's draws depend on its seed and its token's index alone, never on the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from spark_llm.kernels.masked_sample import masked_sample, noise_keys
from spark_llm.serving.choices import Mask
from torch import Tensor

NO_MASK = torch.zeros((1, 1), dtype=torch.int32)


class Draw(NamedTuple):
    """How to choose the token number `position` of an answer; `temperature` 0 takes the most likely."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    position: int = 0


class Sampler:
    """How to choose the next tokens of the same rows, step by step.

    Parameters
    ----------
    draws : sequence of Draw
        Of each row's next token.
    device : torch.device
        Of the logits.
    """

    def __init__(self, draws: Sequence[Draw], device: torch.device) -> None:
        self._device = device
        self._set(_as_array(draws))

    def choose(self, logits: Tensor, masks: NDArray[np.int32] | None = None, mask_of: Tensor | None = None) -> Tensor:
        """One token [n] per row of logits [n, vocab] (float32, overwritten), and move on by one.

        Row i may take what mask `mask_of[i]` of `masks` [m, words] allows, and any token where that is -1.
        """
        self._draws["position"] += 1
        if masks is None and not self._drawn:
            return logits.argmax(-1)
        keys = noise_keys(self._draws["seed"], self._draws["position"] - 1)
        bits = NO_MASK if masks is None else torch.from_numpy(masks)
        rows = torch.full((len(logits),), -1) if mask_of is None else mask_of
        bits, rows, noise = (x.to(self._device) for x in (bits, rows, torch.from_numpy(keys)))
        return masked_sample(logits, bits, rows, self._temperature, self._top_p, noise)

    def take(self, rows: NDArray[np.int64]) -> None:
        """Go on with these rows, in this order."""
        self._set(self._draws.take(rows))

    def join(self, draws: Sequence[Draw]) -> None:
        """Take in rows behind the others."""
        self._set(np.concatenate([self._draws, _as_array(draws)]))

    def _set(self, draws: NDArray[np.void]) -> None:
        self._draws, warm = draws, draws["temperature"] > 0
        self._drawn = bool(warm.any())
        self._temperature = torch.from_numpy(draws["temperature"].copy()).to(self._device)
        cut = self._drawn and (warm & (draws["top_p"] < 1)).any()
        self._top_p = torch.from_numpy(draws["top_p"].copy()).to(self._device) if cut else None


def _as_array(draws: Sequence[Draw]) -> NDArray[np.void]:
    fields = [("temperature", np.float32), ("top_p", np.float32), ("seed", np.uint64), ("position", np.int64)]
    return np.array([(d.temperature, d.top_p, d.seed & 0xFFFFFFFFFFFFFFFF, d.position) for d in draws], fields)


def choose(logits: Tensor, masks: Sequence[Mask | None], draws: Sequence[Draw]) -> list[int]:
    """One allowed token per row of logits [n, vocab] (float32, overwritten); rows whose mask is None may take any."""
    if not draws:
        return []
    numbers: dict[int, int] = {-1: -1}  # of the distinct mask objects
    distinct: list[Mask] = []
    mask_of = []
    for mask in masks:
        known = -1 if mask is None else id(mask)
        if mask is not None and known not in numbers:
            numbers[known] = len(distinct)
            distinct.append(mask)
        mask_of.append(numbers[known])
    sampler = Sampler(draws, logits.device)
    tokens: list[int] = sampler.choose(logits, np.stack(distinct) if distinct else None, torch.tensor(mask_of)).tolist()
    return tokens
