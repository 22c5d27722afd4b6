"""One Flight stream to the front, as the client sees it: bounded in bytes, read by a thread of its own."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict

import pyarrow as pa
from pyarrow import flight
from spark_llm.serving.core import EngineFailure, Finished, Request, RowError
from spark_llm.serving.protocol import (
    END,
    UP,
    StreamHeader,
    batch_to_finished,
    from_metadata,
    requests_to_batch,
    to_metadata,
)
from spark_llm.serving.totals import ClientTotals
from spark_llm.serving.worker.ensure import answers, call_options, connect
from spark_llm.serving.worker.rendezvous import Endpoint

CLOSE_SECONDS = 5.0
SILENCE_SECONDS = 30.0
"""A front that has said nothing for so long is asked whether it still answers; if not, it counts as lost."""


class ConnectionLost(Exception):
    """The front went away; what is unanswered may be asked again elsewhere."""


def request_bytes(request: Request) -> int:
    """Roughly what a request weighs in flight."""
    return 100 + sum(map(len, request.segments))


class Connection:
    """A stream of one call. One thread uses it.

    Every method raises EngineFailure once the worker has said that the call cannot be served, and ConnectionLost
    once the stream has ended otherwise.
    """

    def __init__(self, endpoint: Endpoint, header: StreamHeader, inflight_bytes: int) -> None:
        self.totals = ClientTotals()
        self._limit = inflight_bytes
        self._inbox: queue.SimpleQueue[list[Finished]] = queue.SimpleQueue()
        self._room = threading.Condition()
        self._sizes: dict[int, int] = {}
        self._bytes = 0
        self._ended = False
        self._failure: EngineFailure | None = None
        self._flight = connect(endpoint)
        descriptor = flight.FlightDescriptor.for_command(header.to_json())
        try:
            self._writer, self._reader = self._flight.do_exchange(descriptor, call_options(endpoint))
            self._writer.begin(UP)
        except (pa.ArrowException, OSError) as problem:
            raise ConnectionLost from problem
        self._heard = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        threading.Thread(target=self._watch, args=(endpoint,), daemon=True).start()

    def _read(self) -> None:
        with contextlib.suppress(StopIteration, pa.ArrowException, OSError):
            while True:
                self._on_chunk(self._reader.read_chunk())
        with self._room:
            self._ended = True
            self._room.notify()
        self._over.set()
        self._inbox.put([])

    def _watch(self, endpoint: Endpoint) -> None:
        """End the stream of a front that hangs: reads and writes that wait for it then fail."""
        while not self._over.wait(SILENCE_SECONDS):
            if time.monotonic() - self._heard > SILENCE_SECONDS and not answers(endpoint):
                self._reader.cancel()
                return

    def _on_chunk(self, chunk: flight.FlightStreamChunk) -> None:
        self._heard = time.monotonic()
        message = from_metadata(chunk.app_metadata)
        if totals := message.get("totals"):
            self.totals = ClientTotals(**{**totals, "first_errors": tuple(totals["first_errors"])})
        if failure := message.get("failure"):
            self._failure = EngineFailure(**failure)
        rows = batch_to_finished(chunk.data) if chunk.data is not None else []
        with self._room:
            self._bytes -= sum(self._sizes.pop(row.request_id, 0) for row in rows)
            self._ended |= self._failure is not None
            self._room.notify()
        self._inbox.put(rows)

    def send(self, requests: Sequence[Request]) -> None:
        """Send one batch once there is room for it; a batch larger than all the room goes alone."""
        sizes = {request.request_id: request_bytes(request) for request in requests}
        size = sum(sizes.values())
        with self._room:
            self._room.wait_for(lambda: self._ended or not self._bytes or self._bytes + size <= self._limit)
            self._sizes.update(sizes)
            self._bytes += size
        self._write(requests_to_batch(requests), b"")

    def report(self, calls: int, errors: Sequence[RowError]) -> None:
        """Tell the worker what the executor found."""
        message = {"report": {"calls": calls, "errors": [asdict(error) for error in errors]}}
        self._write(None, to_metadata(message))

    def _write(self, batch: pa.RecordBatch | None, message: bytes) -> None:
        if self._ended:
            raise self._problem()
        try:
            if batch is not None:
                self._writer.write_batch(batch)
            else:
                self._writer.write_metadata(message)
        except (pa.ArrowException, OSError) as problem:
            self._thread.join(CLOSE_SECONDS)  # its last message may say why
            raise self._problem() from problem

    def _problem(self) -> Exception:
        return self._failure or ConnectionLost()

    def receive(self, timeout: float) -> list[Finished]:
        """What has finished; waits at most `timeout` seconds for the first."""
        rows: list[Finished] = []
        with contextlib.suppress(queue.Empty):
            rows = self._inbox.get(timeout=0 if self._ended else timeout) + self.received()
        if not rows and self._ended and self._inbox.empty():
            raise self._problem()
        return rows

    def received(self) -> list[Finished]:
        """What has finished and not been received yet."""
        rows: list[Finished] = []
        while not self._inbox.empty():
            rows += self._inbox.get()
        return rows

    def close(self) -> None:
        """End the stream; the worker cancels what is in flight."""
        # By a message, which makes the front end the call: Arrow's reader closes the sending side when a call ends, and
        # gRPC aborts the process where two threads close it at once (`done_writing` here, and the reader).
        hang = threading.Timer(CLOSE_SECONDS, self._reader.cancel)
        hang.start()
        with contextlib.suppress(pa.ArrowException, OSError):
            if not self._over.is_set():
                self._writer.write_metadata(END)
        self._thread.join()
        hang.cancel()
        with contextlib.suppress(pa.ArrowException, OSError):
            self._writer.close()
            self._flight.close()
