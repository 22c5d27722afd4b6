"""One task of one LLM call: windows of rows in, answers in the same order out.

A window is read, its distinct tuples are found, ordered for prefix reuse and submitted; while the engine works on it
the next window is read. So at most two windows are held, whatever the size of the partition.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spark_llm.conf import Settings
from spark_llm.errors import LlmError
from spark_llm.executor.asker import Asker, Question
from spark_llm.executor.budget import Budget
from spark_llm.executor.connect import kill_watch, open_exchange, spending, task_client, task_partition
from spark_llm.executor.deferred import DeferredExchange
from spark_llm.executor.distinct import Distinct, distinct_tuples, is_utf8
from spark_llm.executor.results import NOT_ASKED, Answer, known_values, result_array
from spark_llm.executor.spending import Spending
from spark_llm.executor.types import arrow_type, session_zone
from spark_llm.optimizer.cells import cells
from spark_llm.optimizer.columns import Window as EncodedWindow
from spark_llm.optimizer.columns import encode_window
from spark_llm.optimizer.core import CallSpec
from spark_llm.optimizer.engine_profile import character_blocks
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
FIRST_ROWS = 1024
"""Rows of a task's first window: the engine begins with them while the next, larger window is planned."""


class Window:
    """Rows read together: their columns, distinct tuples and, as they come, values from the log and answers."""

    def __init__(
        self, batches: Sequence[Batch], fields: int, value_type: pa.DataType, *, share: bool, known: bool
    ) -> None:
        self.rows = sum(len(batch[0]) for batch in batches)
        chunks = zip(*(batch[:fields] for batch in batches), strict=True)
        self.columns = [pa.concat_arrays(column) for column in chunks]
        every = np.arange(self.rows)
        self.distinct = distinct_tuples(self.columns, self.rows) if share else Distinct(every, every)
        self.texts = pa.concat_arrays([batch[fields] for batch in batches]).take(self._first()) if known else None
        self.open = len(self.distinct.first)
        self._answers: list[Answer | None] = [None] * self.open
        self._known = [pa.nulls(0, value_type)]
        self._place = np.full(self.open, -1)

    def _first(self) -> pa.Array:
        return pa.array(self.distinct.first)

    def tuples(self) -> list[pa.Array]:
        """The columns of the distinct tuples only."""
        return [column.take(self._first()) for column in self.columns]

    def unknown(self) -> np.ndarray:
        """The numbers of the tuples without a value or an answer."""
        missing = np.fromiter((answer is None for answer in self._answers), bool, len(self._answers))
        return np.flatnonzero(missing & (self._place < 0))

    def know(self, tuples: np.ndarray, values: pa.Array) -> int:
        """Take the log's values of `tuples`, which have none yet, NULL where there is none; how many there are."""
        found = np.flatnonzero(values.is_valid())
        self._place[tuples[found]] = sum(map(len, self._known)) + found
        self._known.append(values)
        self.open -= len(found)
        return len(found)

    def receive(self, index: int, answer: Answer) -> None:
        self._answers[index] = answer
        self.open -= 1

    def answers(self) -> list[Answer]:
        """What was not known, by tuple."""
        return [answer for answer in self._answers if answer is not None]

    def result(self) -> pa.StructArray:
        """One entry per row, when nothing is open."""
        known, asked, place = pa.concat_arrays(self._known), self._place < 0, self._place.copy()
        place[asked] = len(known) + np.arange(np.count_nonzero(asked))
        payer = np.zeros(self.rows, dtype=bool)
        payer[self.distinct.first] = True
        return result_array(known, self.answers(), place, payer, self.distinct.tuple_of)


class CallRunner:
    """Runs the call of `spec` over the batches of one task."""

    def __init__(self, spec: CallSpec) -> None:
        self.spec = spec
        self.settings = Settings(spec.conf)
        self.budget = Budget.of(self.settings)
        self.prompt: Prompt = prepare(spec)
        self.value_type = arrow_type(spec.result_type)
        self.call = Call.from_dict(self.prompt.call)
        self.identity = IdentityRule.of(self.prompt)
        self.blocks = character_blocks(spec.conf, self.call.instruction)

    def run(self, batches: Iterator[Batch]) -> Iterator[pa.StructArray]:
        """Yield the result column in pieces whose lengths add up to the rows read, in their order.

        Under a row limit windows grow from that many rows, and none is asked before the one before it is answered:
        who reads may stop.

        Raises
        ------
        LlmError
            For a failure of the whole call: no worker, unknown model, too many failed rows, `on_error => 'fail'`.
        """
        ahead = 0 if self.spec.limit else 1
        waiting: deque[Window] = deque()
        with self.session() as session:
            for held in windows(batches, self._sizes(), self.settings.integer("window.bytes")):
                waiting.append(session.ask(held))
                if len(waiting) > ahead:
                    yield session.answers(waiting.popleft())
            while waiting:
                yield session.answers(waiting.popleft())

    def _sizes(self) -> Iterator[int]:
        most = self.settings.integer("window.rows")
        if not self.spec.limit:
            yield min(FIRST_ROWS, most)
        size = min(self.spec.limit or most, most)
        while True:
            yield size
            size = min(2 * size, most)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A stream to the engine, and the result log. Raises LlmError for a failure of the whole call."""
        self.budget.check_estimate(self.spec.plan.estimate if self.spec.plan else {})
        elsewhere = spending(self.spec, self.settings) if self.budget else None
        if elsewhere:
            self.budget.check(elsewhere.before())
        log = None
        try:
            log = TaskLog.open(self.spec, self.settings, self.identity, task_partition())
            exchange = DeferredExchange(lambda: open_exchange(self.spec, self.settings, self.call))
            with kill_watch(self.spec, self.settings), exchange:
                yield Session(self, exchange, log, elsewhere)
        except EngineFailure as failure:
            raise LlmError.of(failure.condition, failure.message, failure.remedy) from None
        finally:
            if log is not None:
                log.close()

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
            return lay_out(encoded, fixed=self.spec.fixed_order, blocks=self.blocks)
        return list(range(encoded.rows)), cells(encoded)

    def unaskable(self, columns: Sequence[pa.Array]) -> dict[int, Answer]:
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
        sizes = np.full(len(columns[0]), len((self.call.instruction + self.call.closing).encode()))
        for column in columns:
            sizes += np.asarray(pc.fill_null(pc.binary_length(column), 0), np.int64)
        found = {}
        for i in np.flatnonzero(sizes > limit):
            cause = LlmError("LLM_LIMIT_EXCEEDED", what=f"a prompt of {sizes[i]} bytes", key=key, limit=limit)
            found[int(i)] = Answer(None, RowError(cause.condition, str(cause), 0))
        return found


class Session:
    """Windows of one task, asked and later answered through one stream."""

    def __init__(
        self, runner: CallRunner, exchange: Exchange, log: TaskLog | None, spending: Spending | None = None
    ) -> None:
        self._runner, self._exchange, self._log, self._spending = runner, exchange, log, spending
        spec = runner.spec
        zone, client = session_zone(spec.conf), task_client(spec, runner.settings)
        record = log.record if log else None
        self._zone = zone
        self._asker = Asker(exchange, runner.call, client, spec.result_type, zone, MEMORY_BYTES, record)

    def ask(self, batches: Sequence[Batch]) -> Window:
        """Submit what is distinct in the rows of `batches` and not known yet."""
        runner, spec = self._runner, self._runner.spec
        joined = bool(spec.log and spec.log["joined"])
        window = Window(batches, len(spec.fields), runner.value_type, share=spec.deterministic, known=joined)
        columns = window.tuples()
        unaskable = runner.unaskable(columns)
        for index, answer in unaskable.items():
            window.receive(index, answer)
        if errors := [answer.error for answer in unaskable.values() if answer.error]:
            self._exchange.report(len(errors), errors)
        if window.texts is not None:
            looked_up = window.unknown()
            self._know(window, looked_up, window.texts.take(pa.array(looked_up)))
        wanted, identities = self._unknown(window, columns)
        if wanted:
            chosen = [column.take(pa.array(wanted, pa.int64())) for column in columns]
            self._asker.ask(runner.questions(chosen, wanted, identities, window))
        return window

    def _unknown(self, window: Window, columns: Sequence[pa.Array]) -> tuple[list[int], list[bytes]]:
        """The tuples that are open when the result log has been looked up, with their identities."""
        wanted = window.unknown()
        chosen = [column.take(pa.array(wanted)) for column in columns]
        identities = dict(zip(wanted.tolist(), self._runner.identity.identities(chosen, len(wanted)), strict=True))
        if self._log is not None and len(wanted):
            self._know(window, wanted, self._log.find(list(identities.values())))
            wanted = window.unknown()
        return wanted.tolist(), [identities[i] for i in wanted.tolist()]

    def _know(self, window: Window, tuples: np.ndarray, texts: pa.Array) -> None:
        """Take the log's `texts` for `tuples`, NULL where it has none."""
        values = known_values(texts, self._runner.spec.result_type, self._runner.value_type, self._zone)
        found = window.know(tuples, values)
        if self._log is not None:
            self._log.count_hits(found)

    def answers(self, window: Window) -> pa.StructArray:
        """Wait for the answers and give one to each row."""
        while window.open:
            self._asker.pump()
            here = self._exchange.totals
            self._runner.budget.check(self._spending.everywhere(here) if self._spending else here)
        self._check_errors(window.answers())
        return window.result()

    def _check_errors(self, answers: Sequence[Answer]) -> None:
        runner, totals = self._runner, self._exchange.totals
        if runner.spec.on_error == "fail" and (failed := next((a.error for a in answers if a.error), None)):
            raise LlmError("LLM_ON_ERROR_FAIL", first=failed.message)
        limit = runner.settings.number("maxErrorRate")
        if totals.calls >= MIN_CALLS_FOR_ERROR_RATE and totals.errors > limit * totals.calls:
            first = "; ".join(dict.fromkeys(totals.first_errors))
            raise LlmError("LLM_ERROR_RATE", errors=totals.errors, calls=totals.calls, limit=limit, first=first)


def _receiver(window: Window, index: int) -> Callable[[Answer], None]:
    return lambda answer: window.receive(index, answer)


def windows(batches: Iterable[Batch], sizes: Iterator[int], limit_bytes: int) -> Iterator[list[Batch]]:
    """Rows in runs, each of the next of `sizes` at most, which is drawn when the run begins."""
    held: list[Batch] = []
    rows = held_bytes = 0
    size = next(sizes)
    for batch in batches:
        start = 0
        while start < len(batch[0]):
            piece = [column.slice(start, size - rows) for column in batch]
            start += len(piece[0])
            held.append(piece)
            rows += len(piece[0])
            held_bytes += sum(column.nbytes for column in piece)
            if rows >= size or held_bytes >= limit_bytes:
                yield held
                held, rows, held_bytes = [], 0, 0
                size = next(sizes)
    if rows:
        yield held
