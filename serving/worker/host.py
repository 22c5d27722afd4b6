"""What the front knows: clients, models and open streams, and when its life ends."""

from __future__ import annotations

import os
import threading
import time
from functools import partial
from typing import Any

import pyarrow as pa
from spark_llm.serving.core import ModelRef, RowError
from spark_llm.serving.protocol import StreamHeader
from spark_llm.serving.worker import leases
from spark_llm.serving.worker.clients import Clients
from spark_llm.serving.worker.dispatch import Dispatch
from spark_llm.serving.worker.process import ReplicaProcess
from spark_llm.serving.worker.rendezvous import Rendezvous, WorkerConf
from spark_llm.serving.worker.stream import Stream


class Host:
    """The worker without its transport. Every method may be called from any thread."""

    def __init__(self, conf: WorkerConf, rendezvous: Rendezvous) -> None:
        self._conf, self._rendezvous = conf, rendezvous
        self._lock = threading.RLock()
        self._clients = Clients(conf.memo_bytes)
        self._models: dict[str, tuple[ModelRef, Dispatch]] = {}
        self._started = self._last_stream = time.time()

    def open(self, header: StreamHeader) -> tuple[Stream, Dispatch]:
        """Begin a stream and start its model's replica; raises EngineFailure when that cannot start."""
        dispatch = self._dispatch(header.model)
        dispatch.start()
        with self._lock:
            client = self._clients.open(header.client, header.pool)
        return Stream(header, client, self._conf.inflight_bytes), dispatch

    def _dispatch(self, model: ModelRef) -> Dispatch:
        with self._lock:
            if model.key not in self._models:
                start = partial(ReplicaProcess, model, self._rendezvous.folder, self._rendezvous.log, self._conf.gpus)
                self._models[model.key] = model, Dispatch(start, self._lock, str(self._rendezvous.log))
            return self._models[model.key][1]

    def ask(self, stream: Stream, dispatch: Dispatch, batch: pa.RecordBatch) -> None:
        """Take a batch of requests of `stream`, waiting while it has too many bytes in flight."""
        stream.wait_for_room()
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
            self._clients.close(stream.client)
            self._last_stream = time.time()

    def tend(self) -> bool:
        """Housekeeping, to be called about once a second; False once the worker should end."""
        with self._lock:
            self._clients.expire(time.time())
            dispatches = [dispatch for _, dispatch in self._models.values()]
        for dispatch in dispatches:
            dispatch.check_start(self._conf.start_seconds)
        replaced = self._rendezvous.owner() != os.getpid()
        return not replaced and self._idle_seconds() < self._conf.idle_seconds

    def _idle_seconds(self) -> float:
        if self._clients.streams:
            return 0.0
        youngest_lease = leases.youngest_age(self._rendezvous.folder)
        return min(time.time() - self._last_stream, youngest_lease)

    def stats(self) -> dict[str, Any]:
        """Counters of all models and clients, for `spark-llm top` and progress bars."""
        with self._lock:
            clients = self._clients.stats()
            models = list(self._models.items())
        described = [
            {"key": key, "model": model.name, "engine": model.engine, **dispatch.stats()}
            for key, (model, dispatch) in models
        ]
        return {"pid": os.getpid(), "started": self._started, "models": described, "clients": clients}

    def end(self) -> None:
        """End all replicas and remove this worker's files."""
        self._rendezvous.withdraw(os.getpid())
        for _, dispatch in self._models.values():
            dispatch.close()
        leases.remove_stale(self._rendezvous.folder, self._conf.idle_seconds)
