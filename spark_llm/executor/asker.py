"""Asks each distinct question of a task once and hands the answer to every window that waits for it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from functools import lru_cache
from typing import Any

from spark_llm.errors import LlmError
from spark_llm.executor.results import Answer
from spark_llm.optimizer.coerce import Misfit, coerce
from spark_llm.optimizer.ddl import to_ddl
from spark_llm.serving.core import Call, ClientRef, Finished, Request, RowError
from spark_llm.serving.exchange import Exchange

Receiver = Callable[[Answer], None]
POLL_SECONDS = 1.0
FREQUENT_ANSWERS = 64
"""Texts whose values are kept, for answers that are mostly equal (labels, booleans)."""


@dataclass(frozen=True, slots=True)
class Question:
    """One distinct tuple to ask; `receive` is called once with its answer. No identity: never shared."""

    segments: tuple[str, ...]
    identity: bytes | None
    seed: int | None
    receive: Receiver


class Asker:
    """The questions of one task in flight, and its memory of answers.

    Parameters
    ----------
    exchange : Exchange
        Where requests go; closed by the caller.
    result_type : object
        Spark's JSON form of the type that answers are parsed into.
    zone : tzinfo
        What a TIMESTAMP answer without a zone means.
    record : callable
        Takes identity and text of each shareable answer that is a value.
    memory_bytes : int
        Bound on remembered answers; the oldest are forgotten first.
    """

    def __init__(
        self,
        exchange: Exchange,
        call: Call,
        client: ClientRef,
        result_type: Any,
        zone: tzinfo,
        memory_bytes: int,
        record: Callable[[bytes, str], None] | None = None,
    ) -> None:
        self._exchange, self._call, self._client = exchange, call, client
        self._result_type = result_type
        self._value = lru_cache(FREQUENT_ANSWERS)(lambda text: coerce(text, result_type, zone))
        self._record = record
        self._memory: OrderedDict[bytes, Answer] = OrderedDict()
        self._memory_left = memory_bytes
        self._waiting: dict[int, list[Receiver]] = {}
        self._identity_of: dict[int, bytes] = {}
        self._id_of: dict[bytes, int] = {}
        self._next_id = 0
        self._misfits: list[RowError] = []

    def ask(self, questions: Sequence[Question]) -> None:
        """Submit questions; answers come by `pump`, or at once where they are known."""
        requests = [r for question in questions if (r := self._request(question)) is not None]
        if requests:
            self._exchange.submit(requests)

    def _request(self, question: Question) -> Request | None:
        identity = question.identity
        if identity is not None:
            if (known := self._memory.get(identity)) is not None:
                question.receive(known)
                return None
            if (asked := self._id_of.get(identity)) is not None:
                self._waiting[asked].append(question.receive)
                return None
        request_id = self._next_id
        self._next_id += 1
        self._waiting[request_id] = [question.receive]
        if identity is not None:
            self._id_of[identity], self._identity_of[request_id] = request_id, identity
        return Request(request_id, self._call, question.segments, identity, seed=question.seed, client=self._client)

    def pump(self) -> None:
        """Wait a little for finished requests and hand them out."""
        finished = self._exchange.poll(POLL_SECONDS)
        for one in finished:
            self._deliver(one)
        if self._misfits:
            self._exchange.report(0, self._misfits)
            self._misfits = []

    def _deliver(self, finished: Finished) -> None:
        receivers = self._waiting.pop(finished.request_id, None)
        if receivers is None:
            return  # answered before the worker was restarted
        answer = self._answer(finished)
        identity = self._identity_of.pop(finished.request_id, None)
        free = Answer(answer.value, answer.error)
        if identity is not None:
            del self._id_of[identity]
            if answer.error is None:
                self._remember(identity, free, len(finished.text or ""))
                if self._record is not None:
                    self._record(identity, finished.text or "")
        for number, receive in enumerate(receivers):
            receive(free if number else answer)

    def _answer(self, finished: Finished) -> Answer:
        usage = None if finished.shared else finished.usage
        if finished.error is not None:
            return Answer(None, finished.error, usage)
        try:
            return Answer(self._value(finished.text or ""), None, usage)
        except Misfit:
            error = self._misfit(finished)
        self._misfits.append(error)
        return Answer(None, error, usage)

    def _misfit(self, finished: Finished) -> RowError:
        if finished.finish_reason == "length":
            cause = LlmError("LLM_ANSWER_TRUNCATED", limit=self._call.max_tokens, type=to_ddl(self._result_type))
        else:
            cause = LlmError("LLM_ANSWER_MISFIT", type=to_ddl(self._result_type))
        return RowError(cause.condition, str(cause))

    def _remember(self, identity: bytes, answer: Answer, text_bytes: int) -> None:
        self._memory[identity] = answer
        self._memory_left -= text_bytes + 200  # 200: key, slots and dictionary entry, roughly
        while self._memory_left < 0 and self._memory:
            _, oldest = self._memory.popitem(last=False)
            self._memory_left += len(str(oldest.value)) + 200
