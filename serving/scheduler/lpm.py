"""Longest prefix match: the order that suits the cache and no one else."""

from __future__ import annotations

from collections import deque

from spark_llm.serving.scheduler.cost import Cost
from spark_llm.serving.scheduler.policy import FirstComeFirstServed, Ticket


class LongestPrefixMatch(FirstComeFirstServed):
    """Longest cached prefix first (Zheng et al., SGLang, NeurIPS 2024, arXiv 2312.07104, theorem 3.1); then by arrival.

    Every waiting request is matched once a step, so that from `limit` waiting requests on the order of arrival is used.
    Requests without a cached prefix wait for as long as others have one.
    """

    def __init__(self, *, cost: Cost | None = None, predict: bool = False, limit: int = 512) -> None:
        super().__init__(cost=cost, predict=predict)
        self._limit = limit
        self._order: deque[Ticket] = deque()

    def refresh(self) -> None:
        super().refresh()
        self._order.clear()

    def _pick(self) -> Ticket | None:
        if len(self) > self._limit:
            return self._queue.first()
        while self._order and self._tickets.get(self._order[0].id) is not self._order[0]:
            self._order.popleft()
        if not self._order:
            self._order.extend(sorted(self._queue, key=lambda ticket: -self.matched(ticket.id)))
        return self._order[0]
