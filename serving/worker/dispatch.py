"""The requests of one replica: merged, remembered, sent to its replica, and asked again after a crash.

No second queue: requests go to the replica at once, where the engine's scheduler orders them. Only after a crash are
they held back: the rows that were in flight are tried in groups, each crash splitting its group, until the row that
ends the process stands alone.
"""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
from spark_llm.serving.core import EngineFailure, Finished, Usage
from spark_llm.serving.protocol import DOWN, batch_to_finished
from spark_llm.serving.worker.process import ReplicaProcess
from spark_llm.serving.worker.prompt_log import PromptLog
from spark_llm.serving.worker.question import Deliveries, Question, deliver, lost_row, send, send_cancel
from spark_llm.serving.worker.stream import Stream

SPLIT = 32
MAX_CRASHES = 3
"""A row that is alone in flight at a crash, and was in flight at so many, is given up."""
MAX_FRUITLESS_CRASHES, MAX_FRUITLESS_CRASHES_PROVEN = 8, 256
"""Crashes in a row without a single answer, after which the model is given up; the latter once it has answered at all:
rows that end the process may be neighbours, as rows are sorted by prefix."""
MAX_FAILED_LOADS = 5
"""Processes in a row that may end while they load a model that was loaded before; none, the first time."""
RETRY_SECONDS = 0.5
"""Wait before a row is asked again; doubled each time."""

Starter = Callable[
    [Callable[[ReplicaProcess, dict[str, Any], pa.Buffer], None], Callable[[ReplicaProcess], None]],
    ReplicaProcess,
]


class Dispatch:
    """All streams of one replica. `lock` is the front's; nothing is sent while it is held.

    `streams` counts them, for the owner.
    """

    def __init__(self, start: Starter, lock: threading.RLock, log: str, prompts: PromptLog | None = None) -> None:
        self._start, self._lock, self._log, self._prompts = start, lock, log, prompts
        self.streams = 0
        self._ids = itertools.count()
        self._replica: ReplicaProcess | None = None
        self._sent: dict[int, Question] = {}
        self._held: deque[list[Question]] = deque()
        self._by_key: dict[Hashable, Question] = {}
        self._later: list[tuple[float, Question]] = []
        self._busy_since = 0.0
        self._fruitless = 0
        self._failed_loads = 0
        self._proven = self._loaded = False

    @property
    def pid(self) -> int | None:
        """Of the replica's process; None while there is none."""
        replica = self._replica
        return replica.pid if replica else None

    def running(self) -> dict[str, int]:
        """Requests of each client that the engine computes now, as it said last."""
        replica = self._replica
        return replica.running if replica and self._sent else {}

    def start(self) -> ReplicaProcess:
        """The running replica, started if need be; raises EngineFailure when its Python does not run."""
        with self._lock:
            if self._replica is None:
                self._replica = self._start(self._on_frame, self._on_exit)
            return self._replica

    def ask(self, stream: Stream, batch: pa.RecordBatch) -> None:
        """Take a batch of requests: answer from the memo, join equal questions in flight, send the rest."""
        size = batch.nbytes // max(1, batch.num_rows)
        columns = [batch.column(name).to_pylist() for name in ("request_id", "identity", "seed", "adapter")]
        known: list[Finished] = []
        fresh: list[Question] = []
        with self._lock:
            stream.check_new(columns[0])
            replica = self.start()
            for row, (request_id, identity, seed, adapter) in enumerate(zip(*columns, strict=True)):
                key = None if identity is None else (stream.domain, stream.asked_as, identity, seed, adapter)
                if (answer := stream.client.memo.get(key)) is not None:
                    known.append(Finished(request_id, *answer, shared=True))
                    stream.client.count(known[-1])
                    continue
                if (question := self._by_key.get(key)) is None:
                    question = stream.question(next(self._ids), key, batch, row, size)
                    fresh.append(question)
                    if key is not None:
                        self._by_key[key] = question
                question.waiters.append((stream, request_id))
                stream.open[request_id] = question
            stream.share.take(size * batch.num_rows)
            stream.count_asked(len(fresh))
            ready = self._admit(fresh)
        if known:
            stream.deliver(known, size * len(known))
        send(replica, ready)

    def _admit(self, fresh: list[Question]) -> list[Question]:
        """Those of `fresh` to send now: all, unless suspects of a crash are being tried."""
        if self._held or (self._fruitless and self._sent):
            self._held.append(fresh)
            return []
        self._note_sent(fresh)
        return fresh

    def _note_sent(self, questions: list[Question]) -> None:
        if not self._sent:
            self._busy_since = time.monotonic()
        self._sent.update((question.id, question) for question in questions)

    def cancel(self, stream: Stream) -> None:
        """Forget everything this stream waits for; what others wait for too goes on."""
        with self._lock:
            for request_id, question in stream.open.items():
                question.waiters.remove((stream, request_id))
            dropped = [question for question in stream.open.values() if not question.waiters]
            stream.open.clear()
            for question in dropped:
                self._drop(question)
            replica = self._replica
        if replica is not None and dropped:
            send_cancel(replica, dropped)
            self._send_held()

    def _drop(self, question: Question) -> None:
        self._sent.pop(question.id, None)
        key = question.key
        if key is not None and self._by_key.get(key) is question:
            del self._by_key[key]

    def _on_frame(self, replica: ReplicaProcess, head: dict[str, Any], body: pa.Buffer) -> None:
        match head["op"]:
            case "ready":
                replica.capacity = head["capacity"]
                self._loaded, self._failed_loads = True, 0
            case "stats":
                replica.stats, replica.running = head["stats"], head["running"]
            case "failed":
                self.fail(EngineFailure(**head["failure"]))
            case "finished":
                self._on_finished(batch_to_finished(pa.ipc.read_record_batch(body, DOWN)))

    def _on_finished(self, rows: Sequence[Finished]) -> None:
        deliveries: Deliveries = {}
        with self._lock:
            self._fruitless, self._proven = 0, True
            for row in rows:
                if (question := self._sent.get(row.request_id)) is None:
                    continue
                if question.may_retry(row):
                    self._ask_later(question)
                else:
                    self._settle(question, row, deliveries)
        deliver(deliveries)
        self._send_held()

    def _ask_later(self, question: Question) -> None:
        del self._sent[question.id]
        self._later.append((time.monotonic() + RETRY_SECONDS * 2 ** (question.asked - 1), question))
        question.asked += 1

    def _send_due(self) -> None:
        """Ask again what failed for a transient cause and has waited long enough."""
        now = time.monotonic()
        with self._lock:
            due = [question for when, question in self._later if when <= now and question.waiters]
            self._later = [(when, question) for when, question in self._later if when > now and question.waiters]
            if not due:
                return
            replica, ready = self.start(), self._admit(due)
        send(replica, ready)

    def _settle(self, question: Question, row: Finished, deliveries: Deliveries) -> None:
        self._drop(question)
        if self._prompts is not None:
            self._prompts.write(question, row)
        error = row.error and replace(row.error, attempts=row.error.attempts + question.asked - 1)
        for number, (stream, request_id) in enumerate(question.waiters):
            usage = Usage() if number else row.usage
            own = Finished(request_id, row.text, row.finish_reason, usage, error, shared=number > 0)
            stream.open.pop(request_id, None)
            stream.count(own, waited=time.monotonic() - question.asked_at)
            if question.key is not None and row.text is not None:
                stream.client.memo.put(question.key, (row.text, row.finish_reason))
            deliveries.setdefault(stream, []).append((own, question.size))

    def _send_held(self) -> None:
        """Send the next group that was held back, once nothing else is in flight."""
        with self._lock:
            group: list[Question] = []
            while self._held and not self._sent and not group:
                group = [question for question in self._held.popleft() if question.waiters]
            self._note_sent(group)
            replica = self._replica
        if replica is not None:
            send(replica, group)

    def _on_exit(self, replica: ReplicaProcess) -> None:
        """The replica's process has ended; whoever was in flight is asked again."""
        deliveries: Deliveries = {}
        with self._lock:
            if self._replica is not replica:
                return
            self._replica = None
            lost, self._sent = list(self._sent.values()), {}
            loading = replica.capacity is None
            self._failed_loads += loading
            self._fruitless += bool(lost) and not loading
            for question in lost:
                question.crashes += not loading
            failure = self._give_up(replica)
            if failure is None and len(lost) == 1 and lost[0].crashes >= MAX_CRASHES:
                self._settle(lost[0], lost_row(lost[0]), deliveries)
            elif failure is None and lost:
                width = len(lost) if loading else -(-len(lost) // SPLIT)
                self._held.extendleft([lost[i : i + width] for i in reversed(range(0, len(lost), width))])
            restart = failure is None and bool(self._held)
        deliver(deliveries)
        if failure is not None:
            self.fail(failure, lost)
        elif restart:
            self._restart()

    def _restart(self) -> None:
        try:
            self.start()
        except EngineFailure as failure:
            self.fail(failure)
        else:
            self._send_held()

    def _give_up(self, replica: ReplicaProcess) -> EngineFailure | None:
        remedy = f"Read its log at {self._log}"
        if replica.capacity is None and self._failed_loads > (MAX_FAILED_LOADS if self._loaded else 0):
            message = "the engine's process ended while it loaded the model."
            return EngineFailure(condition="LLM_ENGINE_START", message=message, remedy=f"{remedy}.")
        if self._fruitless > (MAX_FRUITLESS_CRASHES_PROVEN if self._proven else MAX_FRUITLESS_CRASHES):
            message = f"the engine's process was lost {self._fruitless} times while rows were in flight."
            remedy = f"{remedy}; memory is the usual cause: lower kv_tokens in spark.llm.engine.args."
            return EngineFailure(condition="LLM_WORKER_LOST", message=message, remedy=remedy)
        return None

    def fail(self, failure: EngineFailure, lost: Iterable[Question] = ()) -> None:
        """End every stream that waits for this model, and the replica; the next stream starts it anew."""
        with self._lock:
            later = (question for _, question in self._later)
            questions = [*lost, *self._sent.values(), *itertools.chain.from_iterable(self._held), *later]
            streams = {stream for question in questions for stream, _ in question.waiters}
            replica, self._replica = self._replica, None
            self._sent, self._by_key, self._fruitless = {}, {}, 0
            self._held.clear()
            self._later.clear()
        for stream in streams:
            stream.fail(failure)
        if replica is not None:
            replica.close()

    def tend(self, start_seconds: float, hang_seconds: float) -> None:
        """Housekeeping: ask again what is due, end a replica that hangs, give up one that does not load its model."""
        try:
            self._send_due()
        except EngineFailure as failure:
            self.fail(failure)
        self._end_if_hung(hang_seconds)
        self._check_start(start_seconds)

    def _end_if_hung(self, seconds: float) -> None:
        with self._lock:
            replica = self._replica
            working = replica is not None and replica.capacity is not None and bool(self._sent)
        if replica and working and time.monotonic() - max(replica.heard, self._busy_since) > seconds:
            print(f"replica {replica.pid} said nothing for {seconds:g} s: it is started again", file=sys.stderr)
            replica.kill()

    def _check_start(self, seconds: float) -> None:
        with self._lock:
            replica = self._replica
            waited = 0.0 if replica is None or replica.capacity else time.monotonic() - replica.started
        if waited > seconds:
            message = f"the model was not ready after spark.llm.worker.startSeconds = {seconds:g}."
            remedy = f"Raise it, or read the worker's log at {self._log}."
            self.fail(EngineFailure(condition="LLM_ENGINE_START", message=message, remedy=remedy))

    def stats(self) -> dict[str, Any]:
        """State of the replica, its own counters, and what is in flight."""
        with self._lock:
            replica, running = self._replica, len(self._sent)
            waiting = sum(map(len, self._held)) + len(self._later)
        if replica is None:
            return {"state": "stopped", "in_flight": running, "held": waiting}
        state = "ready" if replica.capacity else "loading"
        counters = {"state": state, "pid": replica.pid, "in_flight": running, "held": waiting}
        return {**counters, "capacity": replica.capacity, "counters": replica.stats}

    def close(self) -> None:
        """End the replica's process."""
        with self._lock:
            replica, self._replica = self._replica, None
        if replica is not None:
            replica.close()
