"""One question at a replica, and how questions are sent and answers handed out."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa
from spark_llm.serving.core import TRANSIENT, ClientRef, Finished, RowError
from spark_llm.serving.protocol import UP

if TYPE_CHECKING:
    from spark_llm.serving.worker.process import ReplicaProcess
    from spark_llm.serving.worker.stream import Stream

Deliveries = dict["Stream", list[tuple[Finished, int]]]
"""What each stream is to be sent: ends of requests, each with the bytes in flight that it frees."""


@dataclass(slots=True, eq=False)
class Question:
    """One question in flight and all who wait for its answer; the first of them pays for it.

    `batch` and `row` keep what was asked, so that it can be asked again. `size` is in bytes.
    """

    id: int
    key: Hashable | None
    batch: pa.RecordBatch
    row: int
    size: int
    call: str
    payer: ClientRef
    domain: str
    attempts: int
    waiters: list[tuple[Stream, int]] = field(default_factory=list)
    asked: int = 1
    crashes: int = 0
    asked_at: float = field(default_factory=time.monotonic)

    def may_retry(self, row: Finished) -> bool:
        """Whether this end of the question was transient and it may be asked once more."""
        transient = row.error is not None and row.error.condition in TRANSIENT
        return transient and self.asked < self.attempts


def send(replica: ReplicaProcess, questions: Sequence[Question]) -> None:
    """Send questions, one frame per batch they came in. A replica that is gone is noticed by its reader."""
    with contextlib.suppress(OSError):
        for _, group in itertools.groupby(questions, key=lambda question: id(question.batch)):
            rows = list(group)
            batch = rows[0].batch
            if len(rows) < batch.num_rows:
                batch = batch.take(pa.array([question.row for question in rows]))
            ids = pa.array([question.id for question in rows], pa.int64())
            renumbered = pa.RecordBatch.from_arrays([ids, *batch.columns[1:]], schema=UP)
            head = {"op": "submit", "call": rows[0].call, "client": asdict(rows[0].payer), "domain": rows[0].domain}
            replica.channel.send(head, renumbered)


def send_cancel(replica: ReplicaProcess, questions: Sequence[Question]) -> None:
    """Tell the replica that nobody waits for these any more."""
    with contextlib.suppress(OSError):
        replica.channel.send({"op": "cancel", "ids": [question.id for question in questions]})


def deliver(deliveries: Deliveries) -> None:
    """Hand every stream what has finished for it."""
    for stream, rows in deliveries.items():
        stream.deliver([row for row, _ in rows], sum(size for _, size in rows))


def lost_row(question: Question) -> Finished:
    """The end of a question that was in flight alone whenever the replica's process was lost."""
    message = f"the engine's process was lost {question.crashes} times while this row was in flight."
    return Finished(question.id, None, "error", error=RowError("LLM_WORKER_LOST", message, question.crashes))
