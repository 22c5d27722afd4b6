"""The front: an Arrow Flight server on a Unix socket (or loopback), free of torch.

`main` runs in a process of its own, started by `spark_llm.serving.worker.ensure`; it ends by itself when idle.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import secrets
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pyarrow as pa
from pyarrow import flight
from spark_llm.serving.core import EngineFailure
from spark_llm.serving.protocol import (
    DOWN,
    StreamHeader,
    check_requests,
    failure_to_dict,
    is_end,
    read_report,
    to_metadata,
)
from spark_llm.serving.worker.host import Host
from spark_llm.serving.worker.metrics import serve_metrics
from spark_llm.serving.worker.process import end_orphans
from spark_llm.serving.worker.rendezvous import Endpoint, Rendezvous, WorkerConf, worker_key
from spark_llm.serving.worker.stream import Stream

TEND_SECONDS = 0.5
ANSWER_SECONDS = 0.2
"""Time for the answer to `shutdown` to leave before the process ends."""
SOCKET_PATH_BYTES = 100
"""Longer paths do not fit the address of a Unix socket (108 bytes on Linux, 104 elsewhere)."""


class _Token(flight.ServerMiddlewareFactory):  # type: ignore[misc]
    """Refuses every call that does not carry the token."""

    def __init__(self, token: str) -> None:
        self._expected = f"Bearer {token}"

    def start_call(self, _info: flight.CallInfo, headers: dict[str, list[str]]) -> None:
        given = headers.get("authorization", [""])[0]
        if not hmac.compare_digest(given.encode(), self._expected.encode()):
            message = "the worker's token is missing or wrong"
            raise flight.FlightUnauthenticatedError(message)


class Front(flight.FlightServerBase):  # type: ignore[misc]
    """The transport of a `Host`."""

    def __init__(self, host: Host, location: flight.Location, token: str) -> None:
        super().__init__(location, middleware={"token": _Token(token)})
        self._host = host
        self.ended = threading.Event()

    def do_exchange(
        self,
        context: flight.ServerCallContext,
        descriptor: flight.FlightDescriptor,
        reader: flight.MetadataRecordBatchReader,
        writer: flight.MetadataRecordBatchWriter,
    ) -> None:
        writer.begin(DOWN)
        chunks = _read(reader)
        try:
            stream = self._host.open(StreamHeader.from_json(descriptor.command), context.is_cancelled)
        except EngineFailure as failure:
            writer.write_metadata(to_metadata({"failure": failure_to_dict(failure)}))
        else:
            self._serve(stream, chunks, writer)
        for _ in chunks:  # until the client has heard of a failure: were the call to end first, it might never
            pass

    def _serve(
        self, stream: Stream, chunks: Iterator[flight.FlightStreamChunk], writer: flight.MetadataRecordBatchWriter
    ) -> None:
        sender = threading.Thread(target=stream.send_to, args=(writer,), daemon=True)
        sender.start()
        try:
            for chunk in chunks:
                if (report := read_report(chunk.app_metadata)) is not None:
                    self._host.report(stream, *report)
                if chunk.data is not None:
                    check_requests(chunk.data)
                    self._host.ask(stream, chunk.data)
        except EngineFailure as failure:
            stream.fail(failure)
        finally:
            self._host.close(stream)
            sender.join()

    def do_action(self, _context: flight.ServerCallContext, action: flight.Action) -> list[flight.Result]:
        if action.type == "shutdown":
            threading.Timer(ANSWER_SECONDS, self.ended.set).start()
        if action.type in {"ping", "shutdown"}:
            return []
        if action.type == "stats":
            return [flight.Result(json.dumps(self._host.stats()).encode())]
        message = f"action '{action.type}' does not exist; accepted: ping, stats, shutdown"
        raise flight.FlightServerError(message)


def _read(reader: flight.MetadataRecordBatchReader) -> Iterator[flight.FlightStreamChunk]:
    """What the client sends, until it ends the stream or is gone."""
    with contextlib.suppress(StopIteration, pa.ArrowException):
        while not is_end((chunk := reader.read_chunk()).app_metadata):
            yield chunk


def _listen(host: Host, socket: Path, token: str) -> tuple[Front, str]:
    """Listen on the Unix socket, or on loopback where the path is too long or such sockets do not work."""
    if len(os.fsencode(socket)) <= SOCKET_PATH_BYTES:
        socket.unlink(missing_ok=True)
        location = flight.Location.for_grpc_unix(str(socket))
        try:
            front = Front(host, location, token)
            socket.chmod(0o600)
        except (pa.ArrowException, OSError) as problem:
            print(f"no Unix socket, listening on loopback: {type(problem).__name__}", file=sys.stderr)
        else:
            return front, location.uri.decode()
    front = Front(host, flight.Location.for_grpc_tcp("127.0.0.1", 0), token)
    return front, f"grpc+tcp://127.0.0.1:{front.port}"


def main() -> None:
    """Serve until idle. Says on standard output where, as soon as it can be reached; then writes to the log."""
    folder, conf = Path(sys.argv[1]), WorkerConf(**json.loads(sys.argv[2]))
    rendezvous = Rendezvous(folder, worker_key(conf.gpus))
    end_orphans(rendezvous.log)
    host, token = Host(conf, rendezvous), secrets.token_urlsafe(32)
    front, location = _listen(host, rendezvous.socket, token)
    endpoint = Endpoint(os.getpid(), location, token)
    rendezvous.publish(endpoint)

    def end(_signal: int, _frame: FrameType | None) -> None:
        front.ended.set()

    signal.signal(signal.SIGTERM, end)
    serve_metrics(host, conf.metrics_port)
    _announce()
    while host.tend() and not front.ended.wait(TEND_SECONDS):
        pass
    host.end()
    os._exit(0)  # an orderly shutdown would wait for streams whose clients hang


def _announce() -> None:
    """Tell the starter, who waits at the other end of standard output, and let it go."""
    os.write(1, b"ready\n")
    os.dup2(2, 1)
