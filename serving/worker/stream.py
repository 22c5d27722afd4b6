"""The front's end of one exchange."""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Hashable
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from spark_llm.serving.core import EngineFailure, Finished
from spark_llm.serving.limits import check_deadline, check_rows
from spark_llm.serving.price import Price
from spark_llm.serving.protocol import StreamHeader, failure_to_dict, finished_to_batch, to_metadata
from spark_llm.serving.scheduler.cost import TokenCost
from spark_llm.serving.worker.clients import Client
from spark_llm.serving.worker.question import Question
from spark_llm.serving.worker.room import Share

if TYPE_CHECKING:
    from pyarrow import flight
    from spark_llm.serving.worker.dispatch import Dispatch
    from spark_llm.serving.worker.residents import Model

COST = TokenCost()


@dataclass(slots=True)
class _Delivery:
    rows: list[Finished] = field(default_factory=list)
    freed: int = 0
    failure: EngineFailure | None = None
    last: bool = False


class Stream:
    """Requests in flight of one exchange, and its outgoing queue.

    `open` (guarded by the front's lock) maps the request ids in flight to their questions. `dispatch` is that of the
    model's replica which answers them, `served` what they cost there so far.
    """

    def __init__(self, header: StreamHeader, client: Client, share: Share, model: Model, dispatch: Dispatch) -> None:
        self.model, self.dispatch = model, dispatch
        self.served = 0.0
        self.client, self.payer, self.domain, self.terms = client, header.payer, header.domain, header.terms
        self.call = json.dumps(header.call.to_dict())
        self.asked_as = header.model.key + json.dumps(asdict(replace(header.call, call_id="")))
        self.price = Price.of(header.model.args)
        self.open: dict[int, Question] = {}
        self.share = share
        self._failed = False
        self._outbox: queue.SimpleQueue[_Delivery] = queue.SimpleQueue()

    @property
    def oldest_wait(self) -> float:
        """Seconds that its oldest unanswered request has waited; the front's lock is held."""
        oldest = next(iter(self.open.values()), None)
        return time.monotonic() - oldest.asked_at if oldest else 0.0

    def check_new(self, request_ids: list[int]) -> None:
        """Raise EngineFailure where the client uses a request id for two open requests."""
        if len(set(request_ids)) < len(request_ids) or not self.open.keys().isdisjoint(request_ids):
            message, remedy = "a request id stands for two open requests.", "Give each request of a stream its own."
            raise EngineFailure("LLM_WORKER_START", message, remedy)

    def question(self, number: int, key: Hashable | None, batch: pa.RecordBatch, row: int, size: int) -> Question:
        """A row of a batch as a question to the replica; this stream is the first who asks it."""
        return Question(number, key, batch, row, size, self.call, self.payer, self.domain, self.terms.attempts)

    def check_deadline(self, now: float) -> None:
        """Raise EngineFailure once the stream's query has run for too long."""
        check_deadline(self.terms, now - self.client.started)

    def count_asked(self, rows: int) -> None:
        """Raise EngineFailure once the stream's query has asked too many rows."""
        self.client.asked += rows
        check_rows(self.terms, self.client.asked)

    def count(self, row: Finished, waited: float) -> None:
        """Account a row that the engine has finished."""
        usage = row.usage
        self.served += COST(usage.prompt - usage.cached, usage.output)
        self.client.count(row, waited=waited, cost=self.price.cost(usage))

    def deliver(self, rows: list[Finished], freed: int) -> None:
        self._outbox.put(_Delivery(rows, freed))

    def fail(self, failure: EngineFailure) -> None:
        """Tell the client that no further row can be answered."""
        if not self._failed:
            self._failed = True
            self._outbox.put(_Delivery(failure=failure))

    def end(self) -> None:
        """Let `send_to` return."""
        self.share.close()
        self._outbox.put(_Delivery(last=True))

    def send_to(self, writer: flight.MetadataRecordBatchWriter) -> None:
        """Write deliveries until `end`; everything that waits goes into one batch."""
        gone = False
        while not (delivery := self._next()).last:
            try:
                if not gone:
                    writer.write_with_metadata(finished_to_batch(delivery.rows), self._message(delivery))
            except (pa.ArrowException, OSError):
                gone = True  # the client went away: keep taking, so that the reading side sees it too and ends
            self.share.free(delivery.freed)

    def _next(self) -> _Delivery:
        delivery = self._outbox.get()
        while not (delivery.last or delivery.failure or self._outbox.empty()):
            more = self._outbox.get()
            rows, freed = delivery.rows + more.rows, delivery.freed + more.freed
            delivery = _Delivery(rows, freed, more.failure, more.last)
        return delivery

    def _message(self, delivery: _Delivery) -> bytes:
        message: dict[str, Any] = {"totals": asdict(self.client.totals)}
        if delivery.failure is not None:
            message["failure"] = failure_to_dict(delivery.failure)
        return to_metadata(message)
