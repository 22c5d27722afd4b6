"""Choosing the next token. A request's draws depend on its seed and its token's index alone, never on the batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Draw:
    """How to choose one token; `temperature` 0 takes the most likely."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    index: int = 0

    @property
    def uniform(self) -> float:
        """The draw in [0, 1) of this seed and index."""
        digest = hashlib.blake2b(f"{self.seed}/{self.index}".encode(), digest_size=8).digest()
        return (int.from_bytes(digest, "big") >> 11) / (1 << 53)


def sample(logits: Tensor, draws: Sequence[Draw]) -> list[int]:
    """One token per row of logits [n, vocab] (float32; tokens that may not be chosen are -inf)."""
    if not draws:
        return []
    tokens = logits.argmax(-1)
    random = [i for i, draw in enumerate(draws) if draw.temperature > 0]
    if random:
        tokens[random] = _nucleus(logits[random], [draws[i] for i in random])
    return tokens.tolist()


def _nucleus(logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Draw from the fewest tokens whose probabilities reach top_p (Holtzman et al., arXiv 1904.09751)."""
    temperature, top_p, uniform = (
        torch.tensor([value], dtype=torch.float64, device=logits.device).T
        for value in zip(*((draw.temperature, draw.top_p, draw.uniform) for draw in draws), strict=True)
    )
    probabilities, order = torch.softmax(logits.double() / temperature, -1).sort(stable=True, descending=True)
    summed = probabilities.cumsum(-1)
    kept = summed - probabilities < top_p
    total = (probabilities * kept).sum(-1, keepdim=True)
    rank = (summed <= uniform * total).sum(-1, keepdim=True)
    return order.gather(-1, rank.minimum(kept.sum(-1, keepdim=True) - 1)).squeeze(-1)
