"""What the front knows: clients, models and open streams, and when its life ends."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pyarrow as pa
from spark_llm.serving.core import EngineFailure, ModelRef, RowError
from spark_llm.serving.footprint import footprint, resident_bytes
from spark_llm.serving.protocol import StreamHeader
from spark_llm.serving.worker import leases
from spark_llm.serving.worker.clients import Clients
from spark_llm.serving.worker.dispatch import Dispatch
from spark_llm.serving.worker.process import ReplicaProcess
from spark_llm.serving.worker.prompt_log import PromptLog
from spark_llm.serving.worker.rendezvous import Rendezvous, WorkerConf
from spark_llm.serving.worker.residents import Model, Residents
from spark_llm.serving.worker.room import Room, Share
from spark_llm.serving.worker.stream import Stream


class Host:
    """The worker without its transport. Every method may be called from any thread."""

    def __init__(self, conf: WorkerConf, rendezvous: Rendezvous) -> None:
        self._conf, self._rendezvous = conf, rendezvous
        self._lock = threading.RLock()
        changed = threading.Condition(self._lock)
        self._clients = Clients(conf.memo_bytes, conf.memo_total_bytes)
        self._room = Room(conf.queue_bytes)
        self._streams: set[Stream] = set()
        self._residents = Residents(changed, conf.memory_bytes, conf.models or int(bool(conf.gpus)))
        self._started = self._last_stream = time.time()

    def open(self, header: StreamHeader, gone: Callable[[], bool] = lambda: False) -> Stream:
        """Begin a stream, and start a replica of its model once there is memory for it.

        Raises
        ------
        EngineFailure
            Where the model cannot start or finds no room before its client is `gone`.
        """
        with self._lock:
            model = self._residents.admit(self._model(header.model), self._conf.start_seconds, gone)
            model.last_used = time.monotonic()
            dispatch = model.placement.place(header)
            client = self._clients.open(header.client, header.pool)
            stream = Stream(header, client, Share(self._room, self._conf.inflight_bytes), model, dispatch)
            self._streams.add(stream)
        return stream

    def _model(self, model: ModelRef) -> Model:
        return Model(model, self._dispatches(model), footprint(model, on_gpu=bool(self._conf.gpus)))

    def _dispatches(self, model: ModelRef) -> list[Dispatch]:
        """One for each replica: as many as the model fits into the GPUs, or one."""
        here = model.engine != "endpoint"  # a server elsewhere needs no GPU of ours, and one process keeps its limits
        gpus = [gpu for gpu in self._conf.gpus.split(",") if gpu and here]
        width = model.args.get("tensor_parallel_size", 1)
        width = width if isinstance(width, int) and width > 0 else 1  # the engine refuses it in its own words
        shares = [",".join(gpus[i : i + width]) for i in range(0, len(gpus), width)] or [""]
        folder, log = self._rendezvous.folder, self._rendezvous.log
        starters = [partial(ReplicaProcess, model, folder, log, share) for share in shares]
        prompts = PromptLog(log.with_suffix(".prompts")) if self._conf.log_prompts else None
        return [Dispatch(start, self._lock, str(log), prompts) for start in starters]

    def ask(self, stream: Stream, batch: pa.RecordBatch) -> None:
        """Take a batch of requests of `stream`, waiting while it has too many bytes in flight."""
        stream.share.wait()
        stream.check_deadline(time.time())
        stream.dispatch.ask(stream, batch)

    def report(self, stream: Stream, calls: int, errors: list[RowError]) -> None:
        """Add what the executor found itself to the client's totals."""
        with self._lock:
            stream.client.report(calls, errors)

    def close(self, stream: Stream) -> None:
        """End a stream; what only it waited for is cancelled."""
        stream.dispatch.cancel(stream)
        stream.end()
        with self._lock:
            self._streams.discard(stream)
            self._clients.close(stream.client)
            stream.model.placement.end(stream.dispatch, stream.client.name, stream.served)
            self._residents.used_last(stream.model)
            self._last_stream = time.time()

    def tend(self) -> bool:
        """Housekeeping, to be called about once a second; False once the worker should end."""
        with self._lock:
            self._clients.expire(time.time())
            streams = list(self._streams)
            dispatches = [dispatch for model in self._residents.models.values() for dispatch in model.dispatches]
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
        """Counters of all replicas and clients, for `spark-llm top`, progress bars and metrics."""
        with self._lock:
            clients, memory = self._clients.stats(), self._residents.stats()
            models = list(self._residents.models.values())
            asked, oldest = self._in_flight()
        running = sum((Counter(dispatch.running()) for model in models for dispatch in model.dispatches), Counter())
        for client in clients:
            name = client["client"]
            client["running"] = min(running[name], asked[name])
            client["queued"] = asked[name] - client["running"]
            client["oldest_wait"] = oldest.get(name, 0.0)
        replicas = [
            {"key": model.ref.key, "model": model.ref.name, "engine": model.ref.engine}
            | {"streams": dispatch.streams, "memory": resident_bytes(dispatch.pid) if dispatch.pid else 0}
            | dispatch.stats()
            for model in models
            for dispatch in model.dispatches
        ]
        own = {"pid": os.getpid(), "started": self._started, "memory": memory}
        return {**own, "models": replicas, "clients": clients}

    def _in_flight(self) -> tuple[Counter[str], dict[str, float]]:
        """By client: unanswered requests, and the seconds that the oldest one has waited."""
        asked: Counter[str] = Counter()
        oldest: dict[str, float] = {}
        for stream in self._streams:
            name = stream.client.name
            asked[name] += len(stream.open)
            oldest[name] = max(oldest.get(name, 0.0), stream.oldest_wait)
        return asked, oldest

    def end(self) -> None:
        """End all replicas and remove this worker's files."""
        self._rendezvous.withdraw(os.getpid())
        for model in list(self._residents.models.values()):
            for dispatch in model.dispatches:
                dispatch.close()
        leases.remove_stale(self._rendezvous.folder, self._conf.idle_seconds)
