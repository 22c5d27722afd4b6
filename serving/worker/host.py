"""What the front knows: clients, models and open streams, and when its life ends."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
from spark_llm.serving.core import EngineFailure, ModelRef, RowError
from spark_llm.serving.protocol import StreamHeader
from spark_llm.serving.worker import leases
from spark_llm.serving.worker.clients import Clients
from spark_llm.serving.worker.dispatch import Dispatch
from spark_llm.serving.worker.process import ReplicaProcess
from spark_llm.serving.worker.rendezvous import Rendezvous, WorkerConf
from spark_llm.serving.worker.room import Room, Share
from spark_llm.serving.worker.stream import Stream


@dataclass(frozen=True, slots=True)
class _Model:
    ref: ModelRef
    dispatches: list[Dispatch]


class Host:
    """The worker without its transport. Every method may be called from any thread."""

    def __init__(self, conf: WorkerConf, rendezvous: Rendezvous) -> None:
        self._conf, self._rendezvous = conf, rendezvous
        self._lock = threading.RLock()
        self._clients = Clients(conf.memo_bytes, conf.memo_total_bytes)
        self._room = Room(conf.queue_bytes)
        self._streams: set[Stream] = set()
        self._models: dict[str, _Model] = {}
        self._started = self._last_stream = time.time()

    def open(self, header: StreamHeader) -> tuple[Stream, Dispatch]:
        """Begin a stream and start a replica of its model; raises EngineFailure when that cannot start.

        All requests of a stream go to one replica: a task's rows are sorted by prefix, so prefixes stay whole.
        """
        with self._lock:
            model = self._models.setdefault(header.model.key, _Model(header.model, self._dispatches(header.model)))
            dispatch = min(model.dispatches, key=lambda dispatch: dispatch.streams)
            dispatch.start()
            dispatch.streams += 1
            client = self._clients.open(header.client, header.pool)
            stream = Stream(header, client, Share(self._room, self._conf.inflight_bytes))
            self._streams.add(stream)
        return stream, dispatch

    def _dispatches(self, model: ModelRef) -> list[Dispatch]:
        """One for each replica: as many as the model fits into the GPUs, or one."""
        here = model.engine != "endpoint"  # a server elsewhere needs no GPU of ours, and one process keeps its limits
        gpus = [gpu for gpu in self._conf.gpus.split(",") if gpu and here]
        width = model.args.get("tensor_parallel_size", 1)
        width = width if isinstance(width, int) and width > 0 else 1  # the engine refuses it in its own words
        shares = [",".join(gpus[i : i + width]) for i in range(0, len(gpus), width)] or [""]
        folder, log = self._rendezvous.folder, self._rendezvous.log
        starters = [partial(ReplicaProcess, model, folder, log, share) for share in shares]
        return [Dispatch(start, self._lock, str(log)) for start in starters]

    def ask(self, stream: Stream, dispatch: Dispatch, batch: pa.RecordBatch) -> None:
        """Take a batch of requests of `stream`, waiting while it has too many bytes in flight."""
        stream.share.wait()
        stream.check_deadline(time.time())
        dispatch.ask(stream, batch)

    def report(self, stream: Stream, calls: int, errors: list[dict[str, Any]]) -> None:
        """Add what the executor found itself to the client's totals."""
        with self._lock:
            stream.client.report(calls, [RowError(**error) for error in errors])

    def close(self, stream: Stream, dispatch: Dispatch) -> None:
        """End a stream; what only it waited for is cancelled."""
        dispatch.cancel(stream)
        stream.end()
        with self._lock:
            dispatch.streams -= 1
            self._streams.discard(stream)
            self._clients.close(stream.client)
            self._last_stream = time.time()

    def tend(self) -> bool:
        """Housekeeping, to be called about once a second; False once the worker should end."""
        with self._lock:
            self._clients.expire(time.time())
            streams = list(self._streams)
            dispatches = [dispatch for model in self._models.values() for dispatch in model.dispatches]
        for stream in streams:
            try:
                stream.check_deadline(time.time())
            except EngineFailure as failure:
                stream.fail(failure)
        for dispatch in dispatches:
            dispatch.tend(self._conf.start_seconds, self._conf.hang_seconds)
        replaced = self._rendezvous.owner() != os.getpid()
        return not replaced and self._idle_seconds() < self._conf.idle_seconds

    def _idle_seconds(self) -> float:
        if self._clients.streams:
            return 0.0
        youngest_lease = leases.youngest_age(self._rendezvous.folder)
        return min(time.time() - self._last_stream, youngest_lease)

    def stats(self) -> dict[str, Any]:
        """Counters of all replicas and clients, for `spark-llm top` and progress bars."""
        with self._lock:
            clients = self._clients.stats()
            models = list(self._models.values())
        replicas = [
            {"key": model.ref.key, "model": model.ref.name, "engine": model.ref.engine, **dispatch.stats()}
            for model in models
            for dispatch in model.dispatches
        ]
        return {"pid": os.getpid(), "started": self._started, "models": replicas, "clients": clients}

    def end(self) -> None:
        """End all replicas and remove this worker's files."""
        self._rendezvous.withdraw(os.getpid())
        for model in self._models.values():
            for dispatch in model.dispatches:
                dispatch.close()
        leases.remove_stale(self._rendezvous.folder, self._conf.idle_seconds)
