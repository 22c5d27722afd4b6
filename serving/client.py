"""How an executor task asks its host's engine worker: the exchange.

Spark forks its Python workers from a daemon: nothing of gRPC is created before the first exchange of a process.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from spark_llm.serving.connection import Connection, ConnectionLost, request_bytes
from spark_llm.serving.core import Call, EngineFailure, Finished, ModelRef, Request, RowError, Terms
from spark_llm.serving.exchange import Exchange
from spark_llm.serving.protocol import StreamHeader
from spark_llm.serving.totals import ClientTotals
from spark_llm.serving.worker import leases
from spark_llm.serving.worker.ensure import act, ensure, find
from spark_llm.serving.worker.rendezvous import Rendezvous, WorkerConf, worker_folder, worker_key

MAX_ATTEMPTS = 3
"""Connections lost in a row, without an answer between them, after which an exchange gives up."""
BATCH_ROWS, BATCH_BYTES = 1024, 1 << 20
DEFAULT_TERMS = Terms()


class WorkerClient:
    """The host's worker as one process sees it; nothing is started before the first use."""

    def __init__(self, conf: WorkerConf) -> None:
        self._conf = conf

    def exchange(
        self, call: Call, model: ModelRef, application: str, execution: str, pool: str, terms: Terms = DEFAULT_TERMS
    ) -> WorkerExchange:
        """Open a stream for one call; starts the worker if need be.

        Raises
        ------
        EngineFailure
            Where no worker can be had. A model that cannot be loaded is reported by `submit` or `poll`.
        """
        if model.engine != "endpoint" and Path(model.name).is_dir():
            model = replace(model, name=str(Path(model.name).absolute()))
        leases.touch(worker_folder(self._conf.dir), application)
        return WorkerExchange(self._conf, StreamHeader(application, execution, pool, model, call, terms))

    def stats(self) -> dict[str, Any]:
        """Counters of the worker's models and clients; {} where no worker runs."""
        endpoint = find(self._rendezvous())
        return json.loads(act(endpoint, "stats")) if endpoint else {}

    def shutdown(self) -> None:
        """End the worker, if one runs, whoever uses it."""
        if (endpoint := find(self._rendezvous())) is not None:
            act(endpoint, "shutdown")

    def _rendezvous(self) -> Rendezvous:
        return Rendezvous(worker_folder(self._conf.dir), worker_key(self._conf.gpus))


def connect(conf: WorkerConf) -> WorkerClient:
    """The client of this host's worker."""
    return WorkerClient(conf)


class WorkerExchange(Exchange):
    """An exchange with the host's worker. A lost front is started again and asked what is unanswered."""

    def __init__(self, conf: WorkerConf, header: StreamHeader) -> None:
        self._conf, self._header = conf, header
        self._unanswered: dict[int, Request] = {}
        self._ready: list[Finished] = []
        self._lost = 0
        self._connection = self._connect()

    def _connect(self) -> Connection:
        while True:
            try:
                return Connection(ensure(self._conf), self._header, self._conf.inflight_bytes)
            except ConnectionLost:
                self._count_loss()

    def _count_loss(self) -> None:
        self._lost += 1
        if self._lost > MAX_ATTEMPTS:
            message = f"the engine worker was lost {self._lost} times while rows were in flight."
            remedy = "Read its log in spark.llm.worker.dir; memory is the usual cause."
            raise EngineFailure(condition="LLM_WORKER_LOST", message=message, remedy=remedy)

    def submit(self, requests: Sequence[Request]) -> None:
        self._unanswered.update((request.request_id, request) for request in requests)
        try:
            self._send(requests)
        except ConnectionLost:
            self._recover()

    def _send(self, requests: Sequence[Request]) -> None:
        for batch in _batches(requests, min(BATCH_BYTES, self._conf.inflight_bytes // 4)):
            self._connection.send(batch)

    def _recover(self) -> None:
        """Connect again and ask again what has no answer yet."""
        while True:
            self._ready += self._take(self._connection.received())
            self._connection.close()
            self._count_loss()
            self._connection = self._connect()
            try:
                return self._send(list(self._unanswered.values()))
            except ConnectionLost:
                continue

    def poll(self, timeout: float) -> list[Finished]:
        rows, self._ready = self._ready, []
        if rows or not self._unanswered:
            return rows
        try:
            return self._take(self._connection.receive(timeout))
        except ConnectionLost:
            self._recover()
            return []

    def _take(self, rows: list[Finished]) -> list[Finished]:
        """Those not seen before: after a lost connection an answer may come twice."""
        fresh = [row for row in rows if self._unanswered.pop(row.request_id, None) is not None]
        if fresh:
            self._lost = 0
        return fresh

    def report(self, calls: int, errors: Sequence[RowError]) -> None:
        try:
            self._connection.report(calls, errors)
        except ConnectionLost:
            self._recover()
            self._connection.report(calls, errors)

    @property
    def totals(self) -> ClientTotals:
        return self._connection.totals

    def cancel(self) -> None:
        self._unanswered.clear()
        self._ready.clear()
        self._connection.close()


def _batches(requests: Sequence[Request], most_bytes: int) -> Iterator[list[Request]]:
    """Runs of requests that are small enough to interleave with other streams and with their own answers."""
    batch: list[Request] = []
    size = 0
    for request in requests:
        batch.append(request)
        size += request_bytes(request)
        if size >= most_bytes or len(batch) >= BATCH_ROWS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
