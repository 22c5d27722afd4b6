"""How an executor task asks its host's engine worker: the exchange."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from spark_llm.serving.core import Finished, Request, RowError


@dataclass(frozen=True, slots=True)
class ClientTotals:
    """What one client (a query) has had answered so far, by all of its tasks on this host.

    `calls` counts finished requests, shared ones too; `errors` those without an answer, `first_errors` a few
    of their messages.
    """

    calls: int = 0
    errors: int = 0
    first_errors: tuple[str, ...] = ()


class Exchange(Protocol):
    """A two-way stream of requests of one call and of their ends, in any order. One thread uses it."""

    def submit(self, requests: Sequence[Request]) -> None:
        """Send requests; waits while too many bytes are in flight. Raises EngineFailure."""

    def poll(self, timeout: float) -> list[Finished]:
        """What has finished; waits at most `timeout` seconds for the first one. Raises EngineFailure."""

    def report(self, calls: int, errors: Sequence[RowError]) -> None:
        """Add to the client's totals `calls` rows that failed unasked, and errors that the executor found."""

    @property
    def totals(self) -> ClientTotals:
        """The client's totals as last heard."""

    def cancel(self) -> None:
        """Give up everything in flight; nothing more is polled."""

    def close(self) -> None:
        """End the stream; cancels what is in flight."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
