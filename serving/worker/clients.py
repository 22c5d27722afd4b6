"""Clients of the worker: what each query was given, and the answers remembered for it."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from spark_llm.serving.core import Finished, RowError, Usage
from spark_llm.serving.totals import ClientTotals, add_totals
from spark_llm.serving.worker.memo import AnswerMemo

QUERY_END_SECONDS = 30.0
"""A client without a stream for so long has ended: between two stages of a query no stream is open."""
KEPT_CLIENTS = 200


class Client:
    """One query: its totals, its counters and its memo. The front's lock guards it."""

    def __init__(self, name: str, pool: str, memo_bytes: int) -> None:
        self.name, self.pool = name, pool
        self.memo = AnswerMemo(memo_bytes)
        self._found = ClientTotals()
        self.streams = self.asked = 0
        self.last_seen = self.started = time.time()
        self._counts = dict.fromkeys(("rows", "calls", "shared", "prompt", "cached", "output"), 0)
        self._waited = self._longest_wait = self._cost = 0.0

    def count(self, row: Finished, *, waited: float = 0.0, cost: float = 0.0) -> None:
        """Account one finished request of this client, `waited` seconds after it was asked."""
        self._waited += waited
        self._longest_wait = max(self._longest_wait, waited)
        self._cost += cost
        counts, usage = self._counts, row.usage
        counts["rows"] += 1
        counts["shared" if row.shared else "calls"] += 1
        counts["prompt"] += usage.prompt
        counts["cached"] += usage.cached
        counts["output"] += usage.output
        if row.error is not None:
            self.report(0, [row.error])

    def report(self, calls: int, errors: Sequence[RowError]) -> None:
        """Add what the executor found itself, or errors of rows that are counted."""
        self._found = add_totals(self._found, calls, errors)

    @property
    def totals(self) -> ClientTotals:
        counts, found = self._counts, self._found
        usage = Usage(counts["prompt"], counts["cached"], counts["output"])
        return add_totals(found, counts["rows"], [], [usage])

    def reopen(self) -> None:
        """A query of the same name after one that has ended (outside of queries the name is the application's)."""
        self.started, self.asked = time.time(), 0

    def stats(self) -> dict[str, Any]:
        return {
            "client": self.name,
            "pool": self.pool,
            "streams": self.streams,
            "started": self.started,
            "last_seen": self.last_seen,
            "errors": self.totals.errors,
            "memo_bytes": self.memo.bytes,
            "mean_wait": self._waited / max(1, self._counts["rows"]),
            "longest_wait": self._longest_wait,
            "cost": self._cost,
            **self._counts,
        }


class Clients:
    """All clients that the front has seen lately. The front's lock guards it."""

    def __init__(self, memo_bytes: int, memo_total_bytes: int) -> None:
        self._memo_bytes, self._memo_total_bytes = memo_bytes, memo_total_bytes
        self._clients: OrderedDict[str, Client] = OrderedDict()

    def open(self, name: str, pool: str) -> Client:
        """The client of a stream that has just been opened."""
        client = self._clients.setdefault(name, Client(name, pool, self._memo_bytes))
        if _ended(client, time.time()):
            client.reopen()
        client.streams += 1
        return client

    def close(self, client: Client) -> None:
        """One of the client's streams has ended."""
        client.streams -= 1
        client.last_seen = time.time()

    @property
    def streams(self) -> int:
        return sum(client.streams for client in self._clients.values())

    def expire(self, now: float) -> None:
        """Forget the answers of ended queries, and the oldest ended queries themselves; keep to the total bytes."""
        ended = [client for client in self._clients.values() if _ended(client, now)]
        for client in ended:
            client.memo.clear()
        for client in ended[: max(0, len(self._clients) - KEPT_CLIENTS)]:
            del self._clients[client.name]

        remembered = sum(client.memo.bytes for client in self._clients.values())
        for client in sorted(self._clients.values(), key=lambda client: (client.streams > 0, client.last_seen)):
            if remembered <= self._memo_total_bytes:
                return
            remembered -= client.memo.bytes
            client.memo.clear()

    def stats(self) -> list[dict[str, Any]]:
        return [client.stats() for client in self._clients.values()]


def _ended(client: Client, now: float) -> bool:
    return not client.streams and now - client.last_seen > QUERY_END_SECONDS
