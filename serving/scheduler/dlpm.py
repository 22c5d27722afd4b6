"""Deficit longest prefix match: fair shares in quanta, and within a quantum the order that suits the cache."""

from __future__ import annotations

import math
from bisect import bisect_left
from functools import partial
from itertools import islice

from spark_llm.serving.scheduler.cost import Cost
from spark_llm.serving.scheduler.policy import Ticket
from spark_llm.serving.scheduler.shares import SharingPolicy

QUANTUM = 2000.0
COMPARED = 16
"""Clients whose cached prefixes are compared at once."""


class Deficits:
    """Credit of service. Everybody who waits gets a quantum once all of them have used up theirs.

    Credit stays in (-U, quantum]: all who wait get the same number of quanta, and none is used up but by service.
    Who returns gets at most one of the quanta that it missed; a new one begins without any.
    """

    def __init__(self, quantum: float) -> None:
        self.quantum = quantum
        self.credit: dict[str, float] = {}
        self.waiting: dict[str, None] = {}
        self.refills = 0
        self._left_at: dict[str, int] = {}

    def arrive(self, name: str) -> None:
        missed = self.refills - self._left_at.get(name, self.refills)
        self.credit[name] = min(self.quantum, self.credit.get(name, 0.0) + missed * self.quantum)
        self.waiting[name] = None

    def leave(self, name: str) -> None:
        del self.waiting[name]
        self._left_at[name] = self.refills

    def charge(self, name: str, amount: float) -> None:
        self.credit[name] = self.credit.get(name, 0.0) - amount

    def forget(self, name: str) -> None:
        self.credit.pop(name, None)
        self._left_at.pop(name, None)

    def ready(self) -> list[str]:
        """Those who wait and have credit, after as many refills as it takes for one to have some."""
        if ready := [name for name in self.waiting if self.credit[name] > 0]:
            return ready
        rounds = math.floor(-max(self.credit[name] for name in self.waiting) / self.quantum) + 1
        self.refills += rounds
        for name in self.waiting:
            self.credit[name] += rounds * self.quantum
        return [name for name in self.waiting if self.credit[name] > 0]


class PrefixSweep:
    """One client's waiting requests, sorted by their tokens and taken in circles.

    That is the depth-first order of their prefix tree, in which each shared prefix is computed once; longest prefix
    match takes this order too (arXiv 2312.07104, theorem 3.1), but compares all of them with the cache each time.
    """

    def __init__(self) -> None:
        self._sorted: list[tuple[bytes, int, Ticket]] = []
        self._at = 0
        self._last: tuple[bytes, int] = (b"", 0)  # the last one taken in this circle

    def __len__(self) -> int:
        return len(self._sorted)

    def add(self, ticket: Ticket, front: bool) -> None:
        entry = (ticket.key, ticket.number, ticket)
        place = bisect_left(self._sorted, entry)
        self._sorted.insert(place, entry)
        if front:
            self._at = place
        elif place < self._at or (place == self._at and entry[:2] < self._last):
            self._at += 1  # behind the sweep

    def remove(self, ticket: Ticket) -> None:
        place = bisect_left(self._sorted, (ticket.key, ticket.number, ticket))
        del self._sorted[place]
        if place < self._at:
            self._at -= 1
        elif place == self._at:
            self._last = ticket.key, ticket.number

    def first(self) -> Ticket:
        if self._at >= len(self._sorted):
            self._at, self._last = 0, (b"", 0)
        return self._sorted[self._at][2]


class DeficitLongestPrefixMatch(SharingPolicy[Deficits, PrefixSweep]):
    """Among pools with credit, and in them clients with credit, the request with the longest cached prefix.

    Compared when a step begins; then its client goes on, along its prefix tree, while it has credit.

    After Cao et al., *Locality-aware fair scheduling in LLM serving*, arXiv 2501.14312. The service of two clients that
    both wait all the time differs by at most 2(U + Q): Q the quantum, U the most that a client can be charged for what
    it has in flight (see `VirtualTokenCounter`). A small quantum is fairer, a large one keeps the cache warmer.
    """

    def __init__(self, *, cost: Cost | None = None, predict: bool = False, quantum: float = QUANTUM) -> None:
        super().__init__(partial(Deficits, quantum), PrefixSweep, cost=cost, predict=predict)
        self._kept: tuple[str, str] | None = None

    def refresh(self) -> None:
        super().refresh()
        self._kept = None

    def stats(self) -> dict[str, float]:
        """`refills`: how often credit ran out, the pressure of fairness on the order."""
        return {"refills": float(self.pools.refills + sum(level.refills for level in self.clients.values()))}

    def _pick(self) -> Ticket | None:
        if self._kept is not None and self._has_credit(*self._kept):
            return self._queues[self._kept].first()
        ready = ((pool, name) for pool in self.pools.ready() for name in self.clients[pool].ready())
        firsts = [self._queues[at].first() for at in islice(ready, COMPARED)]
        best = firsts[0] if len(firsts) == 1 else max(firsts, key=lambda one: (self.matched(one.id), -one.number))
        self._kept = best.client.pool, best.client.name
        return best

    def _has_credit(self, pool: str, name: str) -> bool:
        """Whether a client that waits has credit, and its pool."""
        return (pool, name) in self._queues and self.pools.credit[pool] > 0 and self.clients[pool].credit[name] > 0
