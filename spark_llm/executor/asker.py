"""Asks each distinct question of a task once and hands the answer to every window that waits for it."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace

from spark_llm.errors import LlmError
from spark_llm.executor.results import Answer
from spark_llm.optimizer.schema import Misfit
from spark_llm.serving.client import Exchange
from spark_llm.serving.core import Call, Finished, Request, RowError

Receiver = Callable[[Answer], None]
POLL_SECONDS = 1.0


class Asker:
    """The questions of one task in flight, and its memory of answers.

    Parameters
    ----------
    exchange : Exchange
        Where requests go; closed by the caller.
    parse : callable
        Answer text → value of the result type; raises `Misfit`.
    memory_bytes : int
        Bound on remembered answers; the oldest are forgotten first.
    """

    def __init__(
        self, exchange: Exchange, call: Call, client: str, parse: Callable[[str], object], memory_bytes: int, seed: int | None
    ) -> None:
        self._exchange, self._call, self._client, self._parse, self._seed = exchange, call, client, parse, seed
        self._memory: OrderedDict[bytes, Answer] = OrderedDict()
        self._memory_left = memory_bytes
        self._waiting: dict[int, list[Receiver]] = {}
        self._identity_of: dict[int, bytes] = {}
        self._id_of: dict[bytes, int] = {}
        self._next_id = 0
        self._misfits: list[RowError] = []

    def ask(self, questions: Sequence[tuple[bytes | None, tuple[str, ...], Receiver]]) -> None:
        """Submit (identity, segments, receiver) triples; a receiver is called once, by `pump` or at once."""
        requests = [r for question in questions if (r := self._request(*question)) is not None]
        if requests:
            self._exchange.submit(requests)

    def _request(self, identity: bytes | None, segments: tuple[str, ...], receive: Receiver) -> Request | None:
        if identity is not None:
            if (known := self._memory.get(identity)) is not None:
                receive(known)
                return None
            if (asked := self._id_of.get(identity)) is not None:
                self._waiting[asked].append(receive)
                return None
        request_id = self._next_id
        self._next_id += 1
        self._waiting[request_id] = [receive]
        if identity is not None:
            self._id_of[identity], self._identity_of[request_id] = request_id, identity
        return Request(request_id, self._call, segments, identity, seed=self._row_seed(identity), client=self._client)

    def _row_seed(self, identity: bytes | None) -> int | None:
        if self._seed is None or identity is None:
            return None
        digest = hashlib.sha256(self._seed.to_bytes(8, "big", signed=True) + identity).digest()
        return int.from_bytes(digest[:7], "big")

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
        free = replace(answer, usage=None)
        if identity is not None:
            del self._id_of[identity]
            if answer.error is None:
                self._remember(identity, free, len(finished.text or ""))
        for number, receive in enumerate(receivers):
            receive(free if number else answer)

    def _answer(self, finished: Finished) -> Answer:
        usage = None if finished.shared else finished.usage
        if finished.error is not None:
            return Answer(None, finished.error, usage)
        try:
            return Answer(self._parse(finished.text or ""), None, usage)
        except Misfit as misfit:
            error = self._misfit(finished, misfit)
        self._misfits.append(error)
        return Answer(None, error, usage)

    def _misfit(self, finished: Finished, misfit: Misfit) -> RowError:
        if finished.finish_reason == "length":
            cause = LlmError("LLM_ANSWER_TRUNCATED", limit=self._call.max_tokens, type=misfit.type_name)
        else:
            cause = LlmError("LLM_ANSWER_MISFIT", type=misfit.type_name)
        return RowError(cause.condition, str(cause))

    def _remember(self, identity: bytes, answer: Answer, text_bytes: int) -> None:
        self._memory[identity] = answer
        self._memory_left -= text_bytes + 200  # 200: key, slots and dictionary entry, roughly
        while self._memory_left < 0 and self._memory:
            _, oldest = self._memory.popitem(last=False)
            self._memory_left += len(str(oldest.value)) + 200
