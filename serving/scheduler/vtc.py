"""The Virtual Token Counter: whoever was served least is next."""

from __future__ import annotations

from spark_llm.serving.scheduler.cost import Cost
from spark_llm.serving.scheduler.policy import Arrivals, Ticket
from spark_llm.serving.scheduler.shares import SharingPolicy


class VirtualCounters:
    """Counters of service. Idle time banks no credit: who begins to wait again is lifted to the least of the others.

    With nobody waiting, to the counter of whoever left last: what that one was served meanwhile is not held against it.
    """

    def __init__(self) -> None:
        self.counters: dict[str, float] = {}
        self.waiting: dict[str, None] = {}
        self._last_left: str | None = None

    def arrive(self, name: str) -> None:
        if self.waiting:
            floor = min(self.counters[other] for other in self.waiting)
        else:
            floor = self.counters.get(self._last_left or name, 0.0)
        self.counters[name] = max(self.counters.get(name, 0.0), floor)
        self.waiting[name] = None

    def leave(self, name: str) -> None:
        del self.waiting[name]
        self._last_left = name

    def charge(self, name: str, amount: float) -> None:
        self.counters[name] = self.counters.get(name, 0.0) + amount

    def forget(self, name: str) -> None:
        if name != self._last_left:
            self.counters.pop(name, None)

    def least(self) -> str:
        """The one to serve, among those that wait."""
        return min(self.waiting, key=self.counters.__getitem__)


class VirtualTokenCounter(SharingPolicy[VirtualCounters, Arrivals]):
    """The least served pool, in it the least served client, and of it the oldest request (Sheng et al., OSDI 2024).

    With answers reserved at admission, counters of clients that wait differ by at most U = max(w_p L, w_q M): L the
    longest prompt (or chunk), M the tokens of the KV cache, w the costs of a prompt and of an answer token, w_p ≤ w_q.
    The service of two clients that both wait all the time differs by at most 2U.
    """

    def __init__(self, *, cost: Cost | None = None, predict: bool = False) -> None:
        super().__init__(VirtualCounters, Arrivals, cost=cost, predict=predict)

    def _pick(self) -> Ticket | None:
        pool = self.pools.least()
        return self._queues[pool, self.clients[pool].least()].first()
