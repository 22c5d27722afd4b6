"""A conjunction of predicates that ask: the cheapest way to a decision first, and no more rows than are wanted.

The first rows of a task are a sample: every predicate is asked about them, and their answers stand. The other rows are
asked by rank, each predicate only about the rows that passed those before it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from spark_llm.conf import Settings
from spark_llm.executor.results import ERROR_TYPE, USAGE_TYPE
from spark_llm.executor.runner import Batch, CallRunner, Session, windows
from spark_llm.optimizer.core import CallSpec, Term
from spark_llm.optimizer.predicate_rank import Trial, rank_predicates

SAMPLED_SHARE = 8
"""Of a window, one row in so many at most is in the sample."""
MIN_SAMPLE = 8
UNKNOWN, FALSE, TRUE, NULL = -2, 0, 1, -1

_TESTS: dict[str, Callable[[Any, tuple[Any, ...]], bool]] = {
    "in": lambda value, values: value in values,
    "not null": lambda *_: True,
    "not in": lambda value, values: value not in values,
    "<": lambda value, values: operator.lt(value, values[0]),
    "<=": lambda value, values: operator.le(value, values[0]),
    ">": lambda value, values: operator.gt(value, values[0]),
    ">=": lambda value, values: operator.ge(value, values[0]),
}


class ConjunctionRunner:
    """Runs the terms of `spec` over the batches of one task."""

    def __init__(self, spec: CallSpec) -> None:
        self._spec, self._settings = spec, Settings(spec.conf)
        self._runners = [CallRunner(replace(term.call, conf=spec.conf)) for term in spec.terms]
        self._wanted = spec.limit

    def run(self, batches: Iterator[Batch]) -> Iterator[pa.StructArray]:
        """Yield STRUCT<value BOOLEAN, error, usage> per row; value is NULL once the limit is reached.

        Raises
        ------
        LlmError
            For a failure of a whole call.
        """
        with ExitStack() as stack:
            sessions = [stack.enter_context(runner.session()) for runner in self._runners]
            self._trials = [Trial() for _ in sessions]
            for held in windows(batches, self._sizes(), self._settings.integer("window.bytes")):
                columns = [pa.concat_arrays(column) for column in zip(*held, strict=True)]
                verdicts = Verdicts(self._spec.terms, columns, sessions, self._trials)
                if self._wanted != 0:
                    self._decide(verdicts)
                yield verdicts.result()

    def _sizes(self) -> Iterator[int]:
        """Rows of the next window: all that fit; under a limit so many as should bring the rows that are wanted."""
        most = self._settings.integer("window.rows")
        asked = 0
        while True:
            size = most
            if self._wanted and self._spec.limit:
                passing = (self._spec.limit - self._wanted + 1) / (asked + 1)
                expected = int(np.ceil(self._wanted / passing))
                size = min(max(expected, self._wanted), max(2 * asked, self._wanted), most)
            yield size
            asked += size

    def _decide(self, verdicts: Verdicts) -> None:
        sample = self._sample(verdicts.rows)
        for term in range(len(self._trials)):
            verdicts.ask(term, sample)
        for term in rank_predicates(self._trials, MIN_SAMPLE):
            verdicts.ask(term, np.flatnonzero(verdicts.alive() & verdicts.open(term)))
        passed = np.flatnonzero(verdicts.alive())
        if self._wanted is not None:
            verdicts.drop(passed[self._wanted :])
            self._wanted -= min(self._wanted, len(passed))

    def _sample(self, rows: int) -> npt.NDArray[np.int64]:
        """Rows to ask everything about, evenly spread, as neighbours are alike; none once enough are known."""
        size = min(self._settings.integer("optimize.predicates.sampleRows"), rows // SAMPLED_SHARE)
        known = min(trial.asked for trial in self._trials)
        if len(self._trials) < 2 or size < MIN_SAMPLE or known >= MIN_SAMPLE:
            return np.zeros(0, np.int64)
        return np.linspace(0, rows - 1, size, dtype=np.int64)


class Verdicts:
    """What is known about the rows of one window, term by term."""

    def __init__(
        self, terms: Sequence[Term], columns: Sequence[pa.Array], sessions: Sequence[Session], trials: list[Trial]
    ) -> None:
        self._terms, self._columns, self._sessions, self._trials = terms, columns, sessions, trials
        self.rows = len(columns[0])
        self._verdicts = np.full((len(terms), self.rows), UNKNOWN, np.int8)
        self._usage = np.zeros((len(USAGE_TYPE), self.rows), np.int64)
        self._errors: list[dict[str, Any] | None] = [None] * self.rows
        self._dropped = np.zeros(self.rows, bool)

    def open(self, term: int) -> npt.NDArray[np.bool_]:
        """The rows about which a term was not asked."""
        return self._verdicts[term] == UNKNOWN

    def alive(self) -> npt.NDArray[np.bool_]:
        """The rows that no term refused."""
        return ((self._verdicts == TRUE) | (self._verdicts == UNKNOWN)).all(axis=0)

    def drop(self, rows: npt.NDArray[np.int64]) -> None:
        """Rows that nobody wants."""
        self._dropped[rows] = True

    def ask(self, term: int, rows: npt.NDArray[np.int64]) -> None:
        """Ask a term about rows, and count what it cost and how many passed."""
        if not len(rows):
            return
        asked, session = self._terms[term], self._sessions[term]
        batch = [self._columns[column].take(pa.array(rows)) for column in asked.columns]
        result = session.answers(session.ask([batch]))
        values = result.field("value").to_pylist()
        verdicts = [NULL if v is None else TRUE if _passes(asked, v) else FALSE for v in values]
        self._verdicts[term, rows] = verdicts
        usage = np.stack([np.asarray(result.field("usage").field(i)) for i in range(len(USAGE_TYPE))])
        self._usage[:, rows] += usage
        for row, error in zip(rows.tolist(), result.field("error").to_pylist(), strict=True):
            self._errors[row] = self._errors[row] or error
        prompt, cached, output, *_ = usage.sum(axis=1).tolist()
        self._trials[term].add(len(rows), verdicts.count(TRUE), prompt - cached + output)

    def result(self) -> pa.StructArray:
        """The result column; of a row that one term refuses the value is false, whatever the others say."""
        known = self._verdicts
        refused = (known == FALSE).any(axis=0)
        unknown = (self._dropped | (known < FALSE).any(axis=0)) & ~refused
        value = pa.array(~refused & ~unknown, mask=unknown)
        usage = pa.StructArray.from_arrays([pa.array(counts) for counts in self._usage], fields=list(USAGE_TYPE))
        parts = [value, pa.array(self._errors, ERROR_TYPE), usage]
        return pa.StructArray.from_arrays(parts, names=["value", "error", "usage"])


def _passes(term: Term, value: Any) -> bool:
    return all(_TESTS[test](value, constants) for test, constants in term.tests)
