"""The order in which the predicates of a conjunction are asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(slots=True)
class Trial:
    """What is known of one predicate: rows asked, rows that passed, and tokens computed for them."""

    asked: int = 0
    passed: int = 0
    tokens: float = 0.0

    def add(self, asked: int, passed: int, tokens: float) -> None:
        self.asked += asked
        self.passed += passed
        self.tokens += tokens

    @property
    def rank(self) -> float:
        """Tokens to refuse one row: cost / (1 - selectivity), the latter with one row more on either side."""
        refused = (self.asked - self.passed + 1) / (self.asked + 2)
        return self.tokens / max(self.asked, 1) / refused


def rank_predicates(trials: Sequence[Trial], enough: int) -> list[int]:
    """Predicates, the one that refuses rows at the least cost first; as given while one was asked too little.

    The order that minimizes the expected cost of independent predicates: Hellerstein and Stonebraker, "Predicate
    Migration", SIGMOD 1993, section 3.

    Parameters
    ----------
    trials : sequence of Trial
        One per predicate.
    enough : int
        Rows that each must have been asked about.

    Examples
    --------
    >>> rank_predicates([Trial(32, 16, 6400), Trial(32, 4, 6400)], enough=8)
    [1, 0]
    """
    if any(trial.asked < enough for trial in trials):
        return list(range(len(trials)))
    return sorted(range(len(trials)), key=lambda i: trials[i].rank)
