"""One task of one LLM call: windows of rows in, answers in the same order out.

A window is read, its distinct tuples are found, ordered for prefix reuse and submitted; while the engine works on it
the next window is read. So at most two windows are held, whatever the size of the partition.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spark_llm.conf import Settings
from spark_llm.errors import LlmError
from spark_llm.executor.asker import Asker, Question
from spark_llm.executor.connect import kill_watch, open_exchange, task_client, task_partition
from spark_llm.executor.deferred import DeferredExchange
from spark_llm.executor.distinct import Distinct, distinct_tuples, is_utf8
from spark_llm.executor.results import NOT_ASKED, Answer, result_array
from spark_llm.executor.types import arrow_type, session_zone
from spark_llm.optimizer.cells import cells
from spark_llm.optimizer.columns import Window as EncodedWindow
from spark_llm.optimizer.columns import encode_window
from spark_llm.optimizer.core import CallSpec
from spark_llm.optimizer.identity import IdentityRule, row_seed
from spark_llm.optimizer.layout import lay_out
from spark_llm.optimizer.prompts import Prompt, prepare
from spark_llm.result_log.task import TaskLog
from spark_llm.serving.core import Call, EngineFailure, RowError
from spark_llm.serving.exchange import Exchange

Batch = Sequence[pa.Array]
MIN_CALLS_FOR_ERROR_RATE = 100
MEMORY_BYTES = 4 << 20
"""Answers that a task remembers from one window to the next; the worker remembers more, for all tasks."""


class Window:
    """Rows read together: their columns, distinct tuples and, as they come, answers."""

    def __init__(self, batches: Sequence[Batch], fields: int, *, share: bool, known: bool) -> None:
        self.rows = sum(len(batch[0]) for batch in batches)
        chunks = zip(*(batch[:fields] for batch in batches), strict=True)
        self.columns = [pa.concat_arrays(column) for column in chunks]
        self._known = [batch[fields] for batch in batches] if known else []
        every = np.arange(self.rows)
        self.distinct = distinct_tuples(self.columns, self.rows) if share else Distinct(every, every)
        self.answers: list[Answer | None] = [None] * len(self.distinct.first)
        self.open = len(self.answers)

    def tuples(self) -> list[pa.Array]:
        """The columns of the distinct tuples only."""
        return [column.take(pa.array(self.distinct.first)) for column in self.columns]

    def known(self) -> list[str | None]:
        """The texts that the plan found in the result log, by distinct tuple; empty where it did not look."""
        column = pa.concat_arrays(self._known) if self._known else pa.nulls(0)
        return column.take(pa.array(self.distinct.first)).to_pylist() if self._known else []

    def receive(self, index: int, answer: Answer) -> None:
        self.answers[index] = answer
        self.open -= 1


class CallRunner:
    """Runs the call of `spec` over the batches of one task."""

    def __init__(self, spec: CallSpec) -> None:
        self.spec = spec
        self.settings = Settings(spec.conf)
        self.prompt: Prompt = prepare(spec)
        self.value_type = arrow_type(spec.result_type)
        self.call = Call.from_dict(self.prompt.call)
        self.identity = IdentityRule.of(self.prompt)
        self.log: TaskLog | None = None

    def run(self, batches: Iterator[Batch]) -> Iterator[pa.StructArray]:
        """Yield the result column in pieces whose lengths add up to the rows read, in their order.

        Raises
        ------
        LlmError
            For a failure of the whole call: no worker, unknown model, too many failed rows, `on_error => 'fail'`.
        """
        try:
            self.log = TaskLog.open(self.spec, self.settings, self.identity, task_partition())
            exchange = DeferredExchange(lambda: open_exchange(self.spec, self.settings, self.call))
            with kill_watch(self.spec, self.settings), exchange:
                yield from self._run(batches, exchange)
        except EngineFailure as failure:
            raise LlmError.of(failure.condition, failure.message, failure.remedy) from None
        finally:
            if self.log is not None:
                self.log.close()

    def _run(self, batches: Iterator[Batch], exchange: Exchange) -> Iterator[pa.StructArray]:
        zone = session_zone(self.spec.conf)
        client = task_client(self.spec, self.settings)
        record = self.log.record if self.log else None
        asker = Asker(exchange, self.call, client, self.spec.result_type, zone, MEMORY_BYTES, record)
        waiting: deque[Window] = deque()
        for window in self._windows(batches):
            self._ask(window, asker, exchange)
            waiting.append(window)
            if len(waiting) > 1:
                yield self._answers(waiting.popleft(), asker, exchange)
        while waiting:
            yield self._answers(waiting.popleft(), asker, exchange)

    def _windows(self, batches: Iterator[Batch]) -> Iterator[Window]:
        limit_rows, limit_bytes = self.settings.integer("window.rows"), self.settings.integer("window.bytes")
        held: list[Batch] = []
        rows = held_bytes = 0
        for batch in batches:
            for piece in _pieces(batch, limit_rows):
                held.append(piece)
                rows += len(piece[0])
                held_bytes += sum(column.nbytes for column in piece)
                if rows >= limit_rows or held_bytes >= limit_bytes:
                    yield self._window(held)
                    held, rows, held_bytes = [], 0, 0
        if rows:
            yield self._window(held)

    def _window(self, batches: Sequence[Batch]) -> Window:
        joined = bool(self.spec.log and self.spec.log["joined"])
        return Window(batches, len(self.spec.fields), share=self.spec.deterministic, known=joined)

    def _ask(self, window: Window, asker: Asker, exchange: Exchange) -> None:
        columns = window.tuples()
        unaskable = self._unaskable(columns)
        for index, answer in unaskable.items():
            window.receive(index, answer)
        if errors := [answer.error for answer in unaskable.values() if answer.error]:
            exchange.report(len(errors), errors)
        for index, text in enumerate(window.known()):
            self._receive_known(window, index, text, asker)
        wanted, identities = self._unknown(window, columns, asker)
        if wanted:
            chosen = [column.take(pa.array(wanted, pa.int64())) for column in columns]
            asker.ask(self.questions(chosen, wanted, identities, window))

    def _unknown(self, window: Window, columns: Sequence[pa.Array], asker: Asker) -> tuple[list[int], list[bytes]]:
        """The tuples that are open when the result log has been looked up, with their identities."""
        wanted = [i for i, a in enumerate(window.answers) if a is None]
        identities = self.identity.identities(
            [column.take(pa.array(wanted, pa.int64())) for column in columns], len(wanted)
        )
        if self.log is None:
            return wanted, identities
        for index, text in zip(wanted, self.log.find(identities), strict=True):
            self._receive_known(window, index, text, asker)
        still = [(i, identity) for i, identity in zip(wanted, identities, strict=True) if window.answers[i] is None]
        return [i for i, _ in still], [identity for _, identity in still]

    def _receive_known(self, window: Window, index: int, text: str | None, asker: Asker) -> None:
        if text is not None and window.answers[index] is None and (answer := asker.known(text)) is not None:
            window.receive(index, answer)
            if self.log is not None:
                self.log.count_hit()

    def questions(
        self, columns: Sequence[pa.Array], wanted: Sequence[int], identities: Sequence[bytes], window: Window
    ) -> list[Question]:
        """The tuples of `columns`, which are those numbered `wanted` in the window, in the order to ask them."""
        encoded = encode_window(self.prompt, columns) if columns else EncodedWindow(len(wanted), None, ())
        seeded, shared = "seed" in self.spec.options, self.spec.deterministic
        rows, segments = self._planned(encoded)
        return [
            Question(
                pieces,
                identities[row] if shared else None,
                row_seed(identities[row]) if seeded else None,
                _receiver(window, wanted[row]),
            )
            for row, pieces in zip(rows, segments, strict=True)
        ]

    def _planned(self, encoded: EncodedWindow) -> tuple[list[int], list[tuple[str, ...]]]:
        """Row order and each row's segments."""
        if self.settings.flag("optimize.enabled") and self.settings.flag("optimize.order.enabled"):
            return lay_out(encoded, fixed=self.spec.fixed_order)
        return list(range(encoded.rows)), cells(encoded)

    def _unaskable(self, columns: Sequence[pa.Array]) -> dict[int, Answer]:
        """Tuples that need no model: all fields NULL, a field that is no text, or a prompt beyond its limit."""
        if not columns:
            return {}
        null = np.logical_and.reduce([np.asarray(column.is_null()) for column in columns])
        found = {int(i): NOT_ASKED for i in np.flatnonzero(null)}
        for field, column in zip(self.spec.fields, columns, strict=True):
            cause = LlmError("LLM_INVALID_UTF8", field=field.name)
            error = Answer(None, RowError(cause.condition, str(cause), 0))
            found.update({int(i): error for i in np.flatnonzero(~is_utf8(column))})
        return found | self._too_long(columns)

    def _too_long(self, columns: Sequence[pa.Array]) -> dict[int, Answer]:
        limit, key = self.settings.integer("limit.promptBytes"), "spark.llm.limit.promptBytes"
        sizes = np.full(len(columns[0]), len(self.call.instruction.encode()))
        for column in columns:
            sizes += np.asarray(pc.fill_null(pc.binary_length(column), 0), np.int64)
        found = {}
        for i in np.flatnonzero(sizes > limit):
            cause = LlmError("LLM_LIMIT_EXCEEDED", what=f"a prompt of {sizes[i]} bytes", key=key, limit=limit)
            found[int(i)] = Answer(None, RowError(cause.condition, str(cause), 0))
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


def _receiver(window: Window, index: int) -> Callable[[Answer], None]:
    return lambda answer: window.receive(index, answer)


def _pieces(batch: Batch, rows: int) -> Iterator[Batch]:
    for start in range(0, len(batch[0]), rows):
        yield [column.slice(start, rows) for column in batch]
