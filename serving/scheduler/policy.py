"""What every scheduling policy does: it keeps the requests that wait, says whom to admit next, and counts service.

A driver (the native scheduler, vLLM's scheduler, the simulator) tells it what happens to a request, by its id:

    add → next → admit → serve, serve, … → finish         (and add again, `front=True`, where it was preempted)

Nothing here knows pages, tensors or time. Service is counted while it is given, one prompt chunk and one answer token
after another, so that no answer's length need be known beforehand.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from spark_llm.serving.core import ClientRef
from spark_llm.serving.scheduler.cost import Cost, MeanLength, TokenCost

RequestId = Any
"""Whatever the driver tells requests apart by; hashable."""
CHARGED_TOKENS = 4
"""Drivers with many requests in flight tell of answer tokens so many at a time: what they tell costs time."""
KNOWN_CLIENTS = 4096
"""Clients whose state is kept; beyond it the oldest idle one is forgotten and returns as a new one."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """A waiting request. `key`: its prompt tokens as bytes, so that equal prefixes stand together when sorted."""

    id: RequestId
    client: ClientRef
    key: bytes
    number: int


@dataclass(slots=True)
class Tab:
    """What a client was served in all, and what is still to be charged; `open` counts its requests."""

    client: ClientRef
    service: float = 0.0
    pending: float = 0.0
    open: int = 0


@dataclass(slots=True)
class Account:
    """What an admitted request was served: prompt tokens in place (`cached` of them for nothing) and answer tokens.

    `reserved` prompt tokens and `predicted` answer tokens are charged ahead of service.
    """

    tab: Tab
    cached: int
    predicted: int
    prompt: int = 0
    reserved: int = 0
    output: int = 0
    charged: float = 0.0


class Policy(ABC):
    """The base of all policies.

    Parameters
    ----------
    cost : callable
        Cost of a request by prompt tokens computed and answer tokens; cached prompt tokens cost nothing.
    predict : bool
        Charge an expected answer length at admission, and only the difference later (VTC paper, section 4.4).

    Attributes
    ----------
    matched : callable
        Set by the driver: length in tokens of the cached prefix of a waiting request.
    waiting : dict of str to int
        How many requests of each client wait, of those that have any.
    by_client : bool
        Whether the policy tells clients apart, so that it should see some requests of each.
    """

    by_client: ClassVar[bool] = False

    def __init__(self, *, cost: Cost | None = None, predict: bool = False) -> None:
        self.cost: Cost = cost or TokenCost()
        self.matched: Callable[[RequestId], int] = lambda _: 0
        self.waiting: dict[str, int] = {}
        self._lengths = MeanLength() if predict else None
        self._tickets: dict[RequestId, Ticket] = {}
        self._accounts: dict[RequestId, Account] = {}
        self._tabs: OrderedDict[str, Tab] = OrderedDict()
        self._chosen: Ticket | None = None
        self._number = 0

    def __len__(self) -> int:
        """How many requests wait."""
        return len(self._tickets)

    def __iter__(self) -> Iterator[RequestId]:
        return iter(self._tickets)

    def __contains__(self, request: RequestId) -> bool:
        return request in self._tickets

    def add(self, request: RequestId, client: ClientRef, key: bytes = b"", *, front: bool = False) -> None:
        """Queue a request; `front` for one that was admitted before and had to give its place back."""
        self._chosen = None
        if (account := self._accounts.get(request)) is not None:
            account.reserved = 0
            self._settle(account)
        self._tab(client).open += 1
        self._charge_pending()
        self._number += 1
        self._tickets[request] = ticket = Ticket(request, client, key, self._number)
        self.waiting[client.name] = self.waiting.get(client.name, 0) + 1
        self._enqueue(ticket, front)

    def remove(self, request: RequestId) -> None:
        """Forget a waiting request, if it waits."""
        if (ticket := self._tickets.pop(request, None)) is not None:
            self._chosen = None
            name = ticket.client.name
            self._tabs[name].open -= 1
            self.waiting[name] -= 1
            if not self.waiting[name]:
                del self.waiting[name]
            self._dequeue(ticket)

    def refresh(self) -> None:
        """A new step begins: what the cache holds may have changed."""
        self._chosen = None

    def next(self) -> RequestId | None:
        """Whom to admit next, the same one until something changes; None if nobody waits, or may run now."""
        if self._chosen is None and self._tickets:
            self._charge_pending()
            self._chosen = self._pick()
        return self._chosen.id if self._chosen else None

    def admit(self, request: RequestId, cached: int = 0, reserved: int = 0) -> None:
        """A waiting request begins, behind `cached` prompt tokens.

        `reserved`: the prompt tokens that this step will have in place, charged until `serve` says what it was. For
        drivers that learn only at the end of a step how far they got.
        """
        client = self._tickets[request].client
        account = self._accounts.get(request)
        if account is None:  # else it was preempted: what it was charged, it was served
            predicted = self._lengths.predict(client.name) if self._lengths else 0
            self._accounts[request] = account = Account(self._tab(client), cached, predicted)
            account.tab.open += 1
        elif not account.prompt:  # it was put back before it began
            account.cached = cached
        account.reserved = reserved
        self._settle(account)
        self.remove(request)
        self._admitted(client)

    def is_running(self, request: RequestId) -> bool:
        """Whether a request was admitted, and has neither finished nor gone back to wait."""
        return request in self._accounts and request not in self._tickets

    def serve(self, request: RequestId, prompt: int, output: int) -> None:
        """An admitted request now has `prompt` prompt tokens in place (cached ones too) and `output` answer tokens."""
        account = self._accounts[request]
        if prompt > account.prompt:
            account.prompt = prompt
        account.reserved, account.output = 0, output
        self._settle(account)

    def finish(self, request: RequestId, output: int | None = None) -> None:
        """An admitted request has ended with `output` answer tokens in all (None: as many as last told)."""
        if (account := self._accounts.pop(request, None)) is None:
            return
        account.output, account.reserved = account.output if output is None else output, 0
        if self._lengths is not None:
            self._lengths.observe(account.tab.client.name, account.output)
            account.predicted = 0
        self._settle(account)
        account.tab.open -= 1

    def stats(self) -> dict[str, float]:
        """Counters of the policy itself."""
        return {}

    @property
    def service(self) -> dict[str, float]:
        """Cost of what each client was served, without weights."""
        self._charge_pending()
        return {name: tab.service for name, tab in self._tabs.items()}

    def _settle(self, account: Account) -> None:
        """Note the difference between what was served and what was charged; called for each token, so it is short."""
        prompt = (account.prompt if account.prompt > account.reserved else account.reserved) - account.cached
        output = account.output if account.output > account.predicted else account.predicted
        total = self.cost(prompt if prompt > 0 else 0, output)
        account.tab.pending += total - account.charged
        account.charged = total

    def _charge_pending(self) -> None:
        for tab in self._tabs.values():
            if tab.pending:
                amount, tab.pending = tab.pending, 0.0
                tab.service += amount
                self._charge(tab.client, amount)

    def _tab(self, client: ClientRef) -> Tab:
        tab = self._tabs.get(client.name)
        if tab is None:
            tab = self._tabs[client.name] = Tab(client)
            if len(self._tabs) > KNOWN_CLIENTS:
                self._charge_pending()
                idle = next((name for name, known in self._tabs.items() if not known.open), None)
                if idle is not None:
                    del self._tabs[idle]
                    self._forget(idle)
        tab.client = client  # a pool's weight may change
        return tab

    def _forget(self, client: str) -> None:
        if self._lengths is not None:
            self._lengths.forget(client)

    @abstractmethod
    def _enqueue(self, ticket: Ticket, front: bool) -> None:
        """A request begins to wait."""

    @abstractmethod
    def _dequeue(self, ticket: Ticket) -> None:
        """A request no longer waits."""

    @abstractmethod
    def _pick(self) -> Ticket | None:
        """Choose among the waiting requests; called only while there are some."""

    def _charge(self, client: ClientRef, amount: float) -> None:  # noqa: B027
        """A client was given service worth `amount` (less than nothing where it was charged too much before)."""

    def _admitted(self, client: ClientRef) -> None:  # noqa: B027
        """A request of this client was admitted."""


class Arrivals:
    """Tickets in order of arrival; those that return to the front come first."""

    def __init__(self) -> None:
        self._tickets: OrderedDict[RequestId, Ticket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tickets)

    def __iter__(self) -> Iterator[Ticket]:
        return iter(self._tickets.values())

    def add(self, ticket: Ticket, front: bool) -> None:
        self._tickets[ticket.id] = ticket
        if front:
            self._tickets.move_to_end(ticket.id, last=False)

    def remove(self, ticket: Ticket) -> None:
        del self._tickets[ticket.id]

    def first(self) -> Ticket:
        return next(iter(self))


class FirstComeFirstServed(Policy):
    """In order of arrival, whoever asks."""

    def __init__(self, *, cost: Cost | None = None, predict: bool = False) -> None:
        super().__init__(cost=cost, predict=predict)
        self._queue = Arrivals()

    def _enqueue(self, ticket: Ticket, front: bool) -> None:
        self._queue.add(ticket, front)

    def _dequeue(self, ticket: Ticket) -> None:
        self._queue.remove(ticket)

    def _pick(self) -> Ticket | None:
        return self._queue.first()
