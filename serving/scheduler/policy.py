"""Policies: the order in which waiting sequences are admitted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Protocol

from spark_llm.serving.cache.radix import PrefixCache
from spark_llm.serving.scheduler.sequence import Sequence


class Policy(Protocol):
    def order(self, waiting: Collection[Sequence], cache: PrefixCache) -> Iterable[Sequence]:
        """Yield the waiting sequences (in order of arrival), the next one to admit first."""


class FirstComeFirstServed:
    """In order of arrival: what the planner sorted stays sorted."""

    def order(self, waiting: Collection[Sequence], cache: PrefixCache) -> Iterable[Sequence]:  # noqa: ARG002
        return waiting


class LongestPrefixMatch:
    """Longest cached prefix first (SGLang, arXiv 2312.07104, theorem 3.1); ties in order of arrival.

    Matching costs time, so that from `limit` waiting sequences on the order of arrival is used.
    """

    def __init__(self, limit: int = 512) -> None:
        self.limit = limit

    def order(self, waiting: Collection[Sequence], cache: PrefixCache) -> Iterable[Sequence]:
        if len(waiting) > self.limit:
            return waiting
        return sorted(waiting, key=lambda seq: -cache.matched_length(seq.tokens, seq.domain))


POLICIES: dict[str, Callable[[], Policy]] = {"fcfs": FirstComeFirstServed, "lpm": LongestPrefixMatch}
"""The policies by the names that settings use."""
