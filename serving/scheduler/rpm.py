"""Requests per minute: the rate limit of public services, as a baseline. It is not work-conserving."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import ClassVar

from spark_llm.serving.core import ClientRef
from spark_llm.serving.scheduler.cost import Cost
from spark_llm.serving.scheduler.policy import FirstComeFirstServed, Ticket


class RequestsPerMinute(FirstComeFirstServed):
    """In order of arrival, but of each client at most `limit` requests begin in any 60 s; the others wait."""

    by_client: ClassVar[bool] = True

    def __init__(
        self,
        *,
        cost: Cost | None = None,
        predict: bool = False,
        limit: int = 600,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(cost=cost, predict=predict)
        self._limit, self._clock = limit, clock
        self._begun: dict[str, deque[float]] = {}

    def _pick(self) -> Ticket | None:
        since = self._clock() - 60.0
        for name, times in list(self._begun.items()):
            while times and times[0] <= since:
                times.popleft()
            if not times:
                del self._begun[name]
        full = {name for name, times in self._begun.items() if len(times) >= self._limit}
        return next((ticket for ticket in self._queue if ticket.client.name not in full), None)

    def _admitted(self, client: ClientRef) -> None:
        self._begun.setdefault(client.name, deque()).append(self._clock())
