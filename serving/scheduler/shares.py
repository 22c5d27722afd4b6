"""Two levels of sharing: pools by weight, and the clients of a pool equally."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Generic, Protocol, TypeVar

from spark_llm.serving.core import ClientRef
from spark_llm.serving.scheduler.cost import Cost
from spark_llm.serving.scheduler.policy import Policy, Ticket


class Level(Protocol):
    """Who shares, by name: the pools, or the clients of one pool."""

    waiting: dict[str, None]

    def arrive(self, name: str) -> None:
        """Its first request begins to wait."""

    def leave(self, name: str) -> None:
        """Its last waiting request is gone; it may still be running some."""

    def charge(self, name: str, amount: float) -> None: ...

    def forget(self, name: str) -> None: ...


class Queue(Protocol):
    """The waiting requests of one client."""

    def __len__(self) -> int: ...

    def add(self, ticket: Ticket, front: bool) -> None: ...

    def remove(self, ticket: Ticket) -> None: ...

    def first(self) -> Ticket: ...


AnyLevel = TypeVar("AnyLevel", bound=Level)
AnyQueue = TypeVar("AnyQueue", bound=Queue)


class SharingPolicy(Policy, Generic[AnyLevel, AnyQueue]):
    """Keeps a level of pools, a level of clients for each pool, and a queue for each client that waits.

    A pool is charged the service divided by its weight: equal counters are service in proportion to the weights.
    """

    by_client: ClassVar[bool] = True

    def __init__(
        self, level: Callable[[], AnyLevel], queue: Callable[[], AnyQueue], *, cost: Cost | None, predict: bool
    ) -> None:
        super().__init__(cost=cost, predict=predict)
        self._level, self._queue = level, queue
        self.pools = level()
        self.clients: dict[str, AnyLevel] = {}
        self._queues: dict[tuple[str, str], AnyQueue] = {}
        self._pool_of: dict[str, str] = {}

    def _enqueue(self, ticket: Ticket, front: bool) -> None:
        pool, name = ticket.client.pool, ticket.client.name
        if (pool, name) not in self._queues:
            self._queues[pool, name] = self._queue()
            clients = self.clients.setdefault(pool, self._level())
            if not clients.waiting:
                self.pools.arrive(pool)
            clients.arrive(name)
            self._pool_of[name] = pool
        self._queues[pool, name].add(ticket, front)

    def _dequeue(self, ticket: Ticket) -> None:
        pool, name = ticket.client.pool, ticket.client.name
        queue = self._queues[pool, name]
        queue.remove(ticket)
        if not len(queue):
            del self._queues[pool, name]
            self.clients[pool].leave(name)
            if not self.clients[pool].waiting:
                self.pools.leave(pool)

    def _charge(self, client: ClientRef, amount: float) -> None:
        self.pools.charge(client.pool, amount / client.weight)
        self.clients[client.pool].charge(client.name, amount)

    def _forget(self, client: str) -> None:
        super()._forget(client)
        if (pool := self._pool_of.pop(client, None)) is not None and client not in self.clients[pool].waiting:
            self.clients[pool].forget(client)
