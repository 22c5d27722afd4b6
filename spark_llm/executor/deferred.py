"""An exchange that is opened by its first request: a task whose answers are all known starts no engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from spark_llm.serving.core import Finished, Request, RowError
from spark_llm.serving.exchange import Exchange
from spark_llm.serving.totals import ClientTotals


class DeferredExchange(Exchange):
    """Calls `open_exchange` when there is something to send; nothing was asked and nothing answered until then."""

    def __init__(self, open_exchange: Callable[[], Exchange]) -> None:
        self._open = open_exchange
        self._exchange: Exchange | None = None

    def _opened(self) -> Exchange:
        if self._exchange is None:
            self._exchange = self._open()
        return self._exchange

    def submit(self, requests: Sequence[Request]) -> None:
        self._opened().submit(requests)

    def poll(self, timeout: float) -> list[Finished]:
        return self._exchange.poll(timeout) if self._exchange else []

    def report(self, calls: int, errors: Sequence[RowError]) -> None:
        self._opened().report(calls, errors)

    @property
    def totals(self) -> ClientTotals:
        return self._exchange.totals if self._exchange else ClientTotals()

    def cancel(self) -> None:
        if self._exchange:
            self._exchange.cancel()

    def close(self) -> None:
        if self._exchange:
            self._exchange.close()
