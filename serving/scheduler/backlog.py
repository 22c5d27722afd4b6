"""Requests that are still text: some of each client's are made ready, so that none waits behind another's text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from spark_llm.serving.core import Request
from spark_llm.serving.scheduler.policy import Policy


class Backlog:
    """Requests by client, in order of arrival; in one queue, where the policy does not tell clients apart."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._clients: dict[str, dict[int, Request]] = {}
        self._client_of: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._client_of)

    def __iter__(self) -> Iterator[int]:
        return iter(self._client_of)

    def add(self, requests: Iterable[Request]) -> None:
        for request in requests:
            name = request.client.name if self._policy.by_client else ""
            self._clients.setdefault(name, {})[request.request_id] = request
            self._client_of[request.request_id] = name

    def remove(self, request_id: int) -> None:
        """Forget a request, if it is here."""
        if (name := self._client_of.pop(request_id, None)) is not None:
            del self._clients[name][request_id]
            if not self._clients[name]:
                del self._clients[name]

    def take(self, low: int, high: int) -> list[Request]:
        """Requests to make ready: of each client with fewer than `low` that wait for admission, enough for `high`.

        As long as a step admits no more than `low`, a client with a backlog is never seen without a waiting request.
        """
        ready = self._policy.waiting if self._policy.by_client else {"": len(self._policy)}
        taken = [
            request
            for name, requests in self._clients.items()
            if ready.get(name, 0) < low
            for request in islice(requests.values(), high - ready.get(name, 0))
        ]
        for request in taken:
            self.remove(request.request_id)
        return taken
