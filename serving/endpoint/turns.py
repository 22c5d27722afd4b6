"""Whose request goes next to a server: the client that was served least, so that no query waits behind a longer one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection

from spark_llm.serving.core import Request, Usage

OUTPUT_WEIGHT = 2.0
BYTES_PER_TOKEN = 4


def estimated_tokens(request: Request) -> int:
    """Prompt tokens, roughly."""
    text = len(request.call.instruction) + sum(map(len, request.segments))
    return 1 + text // BYTES_PER_TOKEN


class Turns:
    """Waiting requests by client; virtual token counters (Sheng et al., OSDI 2024, algorithm 2).

    A client's service is its prompt tokens plus twice its answer tokens. A client that comes back to the queue is
    lifted to the least served of those waiting, else to the one that left last: idle time earns nothing.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, OrderedDict[int, Request]] = {}
        self._service: dict[str, float] = {}
        self._client_of: dict[int, str] = {}
        self._last_left = ""

    def __len__(self) -> int:
        return len(self._client_of)

    def add(self, request: Request) -> None:
        client = request.client.name
        if client not in self._waiting:
            others = [self._service[other] for other in self._waiting]
            floor = min(others, default=self._service.get(self._last_left, 0.0))
            self._service[client] = max(self._service.get(client, 0.0), floor)
            self._waiting[client] = OrderedDict()
        self._waiting[client][request.request_id] = request
        self._client_of[request.request_id] = client

    def pop(self) -> Request:
        """The next request; charges its prompt."""
        client = min(self._waiting, key=lambda client: self._service[client])
        request = next(iter(self._waiting[client].values()))
        self.remove(request.request_id)
        self._service[client] += estimated_tokens(request)
        return request

    def remove(self, request_id: int) -> None:
        """Forget a waiting request, if it is one."""
        client = self._client_of.pop(request_id, None)
        if client is not None:
            del self._waiting[client][request_id]
            if not self._waiting[client]:
                del self._waiting[client]
                self._last_left = client

    def charge(self, request: Request, usage: Usage) -> None:
        """Charge the answer, and what the prompt's estimate missed."""
        if request.client.name in self._service:
            missed = usage.prompt - estimated_tokens(request) if usage.prompt else 0
            self._service[request.client.name] += missed + OUTPUT_WEIGHT * usage.output

    def forget(self, clients: Collection[str]) -> None:
        """Drop the counters of all but these clients and those that wait."""
        kept = {*clients, *self._waiting, self._last_left}
        self._service = {client: service for client, service in self._service.items() if client in kept}

    def waiting(self) -> dict[str, int]:
        return {client: len(requests) for client, requests in self._waiting.items()}
