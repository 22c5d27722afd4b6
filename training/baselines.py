"""Baselines without a language model: the most frequent answer, and logistic regression on TF-IDF of words."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

BUCKETS = 1 << 13


def majority(answers: Sequence[str]) -> float:
    """Share of the most frequent answer."""
    return Counter(answers).most_common(1)[0][1] / len(answers)


def counts(texts: Sequence[str]) -> Tensor:
    """Hashed counts of words and word pairs [texts, BUCKETS], sparse, damped: 1 + log of the count."""
    rows, columns, values = [], [], []
    for row, text in enumerate(texts):
        said = re.findall(r"\w+|[^\w\s]", text.lower())
        found = Counter(zlib.crc32(term.encode()) % BUCKETS for term in (*said, *map(" ".join, pairwise(said))))
        rows += [row] * len(found)
        columns += found.keys()
        values += found.values()
    damped = 1 + torch.tensor(values, dtype=torch.float32).log()
    return _sparse(torch.tensor([rows, columns]), damped, len(texts))


def _sparse(indices: Tensor, values: Tensor, rows: int) -> Tensor:
    return torch.sparse_coo_tensor(indices, values, (rows, BUCKETS), check_invariants=False).coalesce()


class TfidfRegression:
    """Multinomial logistic regression on TF-IDF vectors of unit length, fitted by L-BFGS.

    Parameters
    ----------
    texts, answers : sequences of str
        What to learn from.
    penalty : float
        Of the squared weights, per example.
    """

    def __init__(self, texts: Sequence[str], answers: Sequence[str], penalty: float = 1e-5) -> None:
        self.classes = sorted(set(answers))
        raw = counts(texts)
        seen = torch.zeros(BUCKETS).index_add_(0, raw.indices()[1], torch.ones(raw.indices().shape[1]))
        self._rarity = torch.log((1 + len(texts)) / (1 + seen)) + 1
        vectors, targets = self._weigh(raw), torch.tensor([self.classes.index(a) for a in answers])
        self._weights = torch.zeros(BUCKETS, len(self.classes), requires_grad=True)
        self._bias = torch.zeros(len(self.classes), requires_grad=True)
        fit = torch.optim.LBFGS([self._weights, self._bias], max_iter=40, history_size=8, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            fit.zero_grad()
            value = F.cross_entropy(self._scores(vectors), targets) + penalty * self._weights.square().sum()
            value.backward()
            return value

        fit.step(loss)

    def _weigh(self, raw: Tensor) -> Tensor:
        rows, columns = raw.indices()
        values = raw.values() * self._rarity[columns]
        norms = torch.zeros(raw.shape[0]).index_add_(0, rows, values.square()).sqrt().clamp(min=1e-9)
        return _sparse(raw.indices(), values / norms[rows], raw.shape[0])

    def _scores(self, vectors: Tensor) -> Tensor:
        return torch.sparse.mm(vectors, self._weights) + self._bias

    @torch.no_grad()
    def predict(self, texts: Sequence[str], among: Sequence[Sequence[str]] | None = None) -> list[str]:
        """The likeliest class of each text, or of those `among` the text's labels that the training showed."""
        found = []
        for row, scores in enumerate(self._scores(self._weigh(counts(texts)))):
            allowed = [i for i, name in enumerate(self.classes) if among is None or name in among[row]]
            best = max(allowed, key=lambda i: float(scores[i]), default=None)
            found.append(among[row][0] if best is None and among else self.classes[best or 0])
        return found
