"""What a task asks through: requests of one call out, their ends back, in any order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from spark_llm.serving.core import Finished, Request, RowError
from spark_llm.serving.totals import ClientTotals


class Exchange(ABC):
    """A two-way stream of requests of one call and of their ends, in any order. One thread uses it."""

    @abstractmethod
    def submit(self, requests: Sequence[Request]) -> None:
        """Send requests; waits while too many bytes are in flight. Raises EngineFailure."""

    @abstractmethod
    def poll(self, timeout: float) -> list[Finished]:
        """What has finished; waits at most `timeout` seconds for the first one. Raises EngineFailure."""

    @abstractmethod
    def report(self, calls: int, errors: Sequence[RowError]) -> None:
        """Add to the client's totals `calls` rows that failed unasked, and errors that the executor found."""

    @property
    @abstractmethod
    def totals(self) -> ClientTotals:
        """The client's totals as last heard."""

    @abstractmethod
    def cancel(self) -> None:
        """Give up everything in flight; nothing more is polled."""

    def close(self) -> None:
        """End the stream; cancels what is in flight."""
        self.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
