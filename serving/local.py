"""An exchange with an engine inside this process: no worker, no sockets."""

from __future__ import annotations

import time
from collections.abc import Sequence

from spark_llm.serving.core import Call, Engine, Finished, ModelRef, Request, RowError, Terms
from spark_llm.serving.engines import create_engine
from spark_llm.serving.exchange import Exchange
from spark_llm.serving.limits import check_deadline, check_rows
from spark_llm.serving.totals import ClientTotals, add_totals

_engines: dict[str, Engine] = {}


def _engine(model: ModelRef) -> Engine:
    if model.key not in _engines:
        _engines[model.key] = create_engine(model)
    return _engines[model.key]


class LocalExchange(Exchange):
    """The engine steps inside `poll`.

    The caller owns the engine, so that it can serve one exchange after another.
    """

    def __init__(self, engine: Engine, call: Call, terms: Terms | None = None) -> None:
        self._engine, self._call, self._terms = engine, call, terms or Terms()
        self._asked, self._started = 0, time.monotonic()
        self._in_flight: set[int] = set()
        self._totals = ClientTotals()

    @classmethod
    def shared(cls, model: ModelRef, call: Call, terms: Terms | None = None) -> LocalExchange:
        """An exchange with this process's engine of `model`, created on first use; one exchange at a time."""
        return cls(_engine(model), call, terms)

    def submit(self, requests: Sequence[Request]) -> None:
        self._asked += len(requests)
        check_rows(self._terms, self._asked)
        self._in_flight.update(request.request_id for request in requests)
        self._engine.submit(requests)

    def poll(self, timeout: float) -> list[Finished]:
        check_deadline(self._terms, time.monotonic() - self._started)
        deadline = time.monotonic() + timeout
        finished: list[Finished] = []
        while not finished and self._in_flight and self._engine.has_work():
            finished = self._engine.step()
            if time.monotonic() >= deadline:
                break
        finished = [row for row in finished if row.request_id in self._in_flight]
        self._in_flight.difference_update(row.request_id for row in finished)
        errors = [row.error for row in finished if row.error]
        self._totals = add_totals(self._totals, len(finished), errors, [row.usage for row in finished])
        return finished

    def report(self, calls: int, errors: Sequence[RowError]) -> None:
        self._totals = add_totals(self._totals, calls, errors)

    @property
    def totals(self) -> ClientTotals:
        return self._totals

    def cancel(self) -> None:
        self._engine.cancel(sorted(self._in_flight))
        self._in_flight.clear()
