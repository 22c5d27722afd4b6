"""What serving a request costs: how charges follow from its input and output tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

Cost = Callable[[int, int], float]
"""`cost(n_in, n_out)` of a request after `n_in` computed prompt tokens and `n_out` answer tokens; monotone."""


@dataclass(frozen=True, slots=True)
class TokenCost:
    """So much per prompt token and per answer token (Sheng et al., VTC, OSDI 2024: 1 and 2)."""

    prompt: float = 1.0
    output: float = 2.0

    def __call__(self, n_in: int, n_out: int) -> float:
        return self.prompt * n_in + self.output * n_out


@dataclass(frozen=True, slots=True)
class QuadraticCost:
    """The profiled cost of the VTC paper: input, output, their product (attention over the prompt), output squared."""

    prompt: float
    output: float
    product: float
    square: float
    constant: float = 0.0

    def __call__(self, n_in: int, n_out: int) -> float:
        linear = self.prompt * n_in + self.output * n_out + self.constant
        return linear + self.product * n_in * n_out + self.square * n_out * n_out

    @classmethod
    def fit(cls, measured: Sequence[tuple[int, int, float]]) -> Self:
        """Least squares over `(n_in, n_out, cost)`, e.g. milliseconds per request at a full batch."""
        n_in, n_out, cost = np.array(measured, np.float64).T
        terms = np.stack([n_in, n_out, n_in * n_out, n_out**2, np.ones_like(n_in)], axis=1)
        return cls(*np.linalg.lstsq(terms, cost, rcond=None)[0].tolist())


class MeanLength:
    """Predicts the answer length of a client's next request: a moving average over its last answers, about `window`."""

    def __init__(self, window: int = 5) -> None:
        self._window = window
        self._means: dict[str, float] = {}

    def predict(self, client: str) -> int:
        """0 while nothing is known."""
        return round(self._means.get(client, 0.0))

    def observe(self, client: str, output: int) -> None:
        mean = self._means.get(client, float(output))
        self._means[client] = (mean * (self._window - 1) + output) / self._window

    def forget(self, client: str) -> None:
        self._means.pop(client, None)
