"""One task of one LLM call: windows of rows in, answers in the same order out.

A window is read, its distinct tuples are found, ordered for prefix reuse and submitted; while the engine works on it
the next window is read. So at most two windows are held, whatever the size of the partition.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from spark_llm.conf import Settings
from spark_llm.errors import LlmError
from spark_llm.executor.asker import Asker
from spark_llm.executor.connect import open_exchange, task_client
from spark_llm.executor.distinct import Distinct, distinct_tuples, is_utf8
from spark_llm.executor.results import NOT_ASKED, Answer, result_array
from spark_llm.executor.types import arrow_type
from spark_llm.optimizer.core import CallSpec
from spark_llm.optimizer.prompts import prepare
from spark_llm.optimizer.schema import coerce
from spark_llm.serving.client import Exchange
from spark_llm.serving.core import Call, Constraint, EngineFailure, RowError

Batch = Sequence[pa.Array]
MIN_CALLS_FOR_ERROR_RATE = 100


class Window:
    """Rows read together: their columns, distinct tuples and, as they come, answers."""

    def __init__(self, batches: Sequence[Batch], fields: int) -> None:
        self.rows = sum(len(batch[0]) for batch in batches)
        chunks = zip(*(batch[:fields] for batch in batches), strict=True)
        self.columns = [pa.concat_arrays(column) for column in chunks]
        self.distinct: Distinct = distinct_tuples(self.columns, self.rows)
        self.answers: list[Answer | None] = [None] * len(self.distinct.first)
        self.open = len(self.answers)

    def tuples(self) -> list[pa.Array]:
        """The columns of the distinct tuples only."""
        return [column.take(pa.array(self.distinct.first)) for column in self.columns]

    def receive(self, index: int, answer: Answer) -> None:
        self.answers[index] = answer
        self.open -= 1


class CallRunner:
    """Runs the call of `spec` over the batches of one task."""

    def __init__(self, spec: CallSpec) -> None:
        self.spec = spec
        self.settings = Settings(spec.conf)
        self.prompt = prepare(spec)
        self.value_type = arrow_type(spec.result_type)
        self.call = Call(
            call_id=spec.call_id,
            instruction=self.prompt.instruction,
            system=self.prompt.system,
            max_tokens=self.prompt.max_tokens or self.settings.integer("maxTokens"),
            temperature=self.prompt.temperature,
            top_p=self.prompt.top_p,
            stop=tuple(self.prompt.stop),
            constraint=Constraint(self.prompt.constraint_kind, self.prompt.constraint_value),
            chat=self.settings.flag("chat"),
        )

    def run(self, batches: Iterator[Batch]) -> Iterator[pa.StructArray]:
        """Yield the result column in pieces whose lengths add up to the rows read, in their order.

        Raises
        ------
        LlmError
            For a failure of the whole call: no worker, unknown model, too many failed rows, `on_error => 'fail'`.
        """
        try:
            with open_exchange(self.spec, self.settings, self.call) as exchange:
                yield from self._run(batches, exchange)
        except EngineFailure as failure:
            raise _as_llm_error(failure) from None

    def _run(self, batches: Iterator[Batch], exchange: Exchange) -> Iterator[pa.StructArray]:
        memory = self.settings.integer("window.bytes")
        asker = Asker(exchange, self.call, task_client(self.spec), self._parse, memory, self.prompt.seed)
        waiting: deque[Window] = deque()
        for window in self._windows(batches):
            self._ask(window, asker)
            waiting.append(window)
            if len(waiting) > 1:
                yield self._answers(waiting.popleft(), asker, exchange)
        while waiting:
            yield self._answers(waiting.popleft(), asker, exchange)

    def _parse(self, text: str) -> object:
        return coerce(text, self.spec.result_type)

    def _windows(self, batches: Iterator[Batch]) -> Iterator[Window]:
        rows, limit_rows, limit_bytes = 0, self.settings.integer("window.rows"), self.settings.integer("window.bytes")
        held: list[Batch] = []
        held_bytes = 0
        for batch in batches:
            for piece in _pieces(batch, limit_rows):
                held.append(piece)
                rows += len(piece[0])
                held_bytes += sum(column.nbytes for column in piece)
                if rows >= limit_rows or held_bytes >= limit_bytes:
                    yield Window(held, len(self.spec.fields))
                    held, rows, held_bytes = [], 0, 0
        if rows:
            yield Window(held, len(self.spec.fields))

    def _ask(self, window: Window, asker: Asker) -> None:
        columns = window.tuples()
        for index, answer in self._unaskable(columns, window).items():
            window.receive(index, answer)
        wanted = np.array([i for i, a in enumerate(window.answers) if a is None], dtype=np.int64)
        if not len(wanted):
            return
        planned = self.prompt.render([column.take(pa.array(wanted)) for column in columns], len(wanted))
        asker.ask(
            [
                (question.identity, question.segments, _receiver(window, int(wanted[question.row])))
                for question in planned
            ]
        )

    def _unaskable(self, columns: Sequence[pa.Array], window: Window) -> dict[int, Answer]:
        """Tuples that need no model: all fields NULL, or a field that is no text."""
        if not columns:
            return {}
        null = np.logical_and.reduce([np.asarray(column.is_null()) for column in columns])
        found = {int(i): NOT_ASKED for i in np.flatnonzero(null)}
        for field, column in zip(self.spec.fields, columns, strict=True):
            cause = LlmError("LLM_INVALID_UTF8", field=field.name)
            error = Answer(None, RowError(cause.condition, str(cause), 0))
            found.update({int(i): error for i in np.flatnonzero(~is_utf8(column))})
        return found

    def _answers(self, window: Window, asker: Asker, exchange: Exchange) -> pa.StructArray:
        while window.open:
            asker.pump()
        answers = [a for a in window.answers if a is not None]
        self._check_errors(answers, exchange)
        payer = np.zeros(window.rows, dtype=bool)
        payer[window.distinct.first] = True
        return result_array(answers, payer, window.distinct.tuple_of, self.value_type)

    def _check_errors(self, answers: Sequence[Answer], exchange: Exchange) -> None:
        if self.spec.on_error == "fail" and (failed := next((a.error for a in answers if a.error), None)):
            raise LlmError("LLM_ON_ERROR_FAIL", first=failed.message)
        limit, totals = self.settings.number("maxErrorRate"), exchange.totals
        if totals.calls >= MIN_CALLS_FOR_ERROR_RATE and totals.errors > limit * totals.calls:
            first = "; ".join(dict.fromkeys(totals.first_errors))
            raise LlmError("LLM_ERROR_RATE", errors=totals.errors, calls=totals.calls, limit=limit, first=first)


def _receiver(window: Window, index: int):  # noqa: ANN202
    return lambda answer: window.receive(index, answer)


def _pieces(batch: Batch, rows: int) -> Iterator[Batch]:
    for start in range(0, len(batch[0]), rows):
        yield [column.slice(start, rows) for column in batch]


def _as_llm_error(failure: EngineFailure) -> Exception:
    return RuntimeError(f"[{failure.condition}] {failure.message}\n\n{failure.remedy}")
