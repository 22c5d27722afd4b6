"""Several predicates in one task: rows, order by rank, early stop, and how often each was asked."""

from __future__ import annotations

import operator

import pyarrow as pa
import pytest
from spark_llm.optimizer.core import CallSpec, Field, Term

from spark_llm.executor.udf import bind
from tests.conftest import stub_conf

COMPARISONS = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "in": operator.eq,
    "not in": operator.ne,
}
LABELS = list("abcdefgh")


def term(instruction: str, columns=(0,), test="in", value=True, labels=None) -> Term:
    fields = tuple(Field(f"f{i}") for i in columns)
    if labels:
        options = {"choices": labels, "instruction": instruction}
        return Term(CallSpec("llm_classify", "", fields, options, "string"), columns, ((test, (value,)),))
    return Term(CallSpec("llm_filter", instruction, fields, {}, "boolean"), columns, ((test, (value,)),))


def ask(calls, terms, *columns, limit=None, conf=()):
    calls.reset()
    fields = tuple(Field(f"f{i}") for i in range(len(columns)))
    settings = {**stub_conf(calls.folder), **dict(conf)}
    spec = CallSpec("llm_filter", "", fields, {}, "boolean", settings, limit=limit, terms=tuple(terms))
    batches = [tuple(pa.array(c[i : i + 100], pa.string()) for c in columns) for i in range(0, len(columns[0]), 100)]
    pieces = list(bind(spec.to_json())(iter(batches)))
    rows = [row for piece in pieces for row in piece.to_pylist()]
    assert len(rows) == len(columns[0])
    return rows


def passing(rows) -> list[int]:
    return [i for i, row in enumerate(rows) if row["value"]]


TEXTS = [f"text {i}" for i in range(400)]
GOOD, RARE = term("Good?"), term("Kind?", labels=LABELS, value="a")


def each(calls, *terms, columns=(TEXTS,)):
    """Rows that pass every term when each is asked alone about all."""
    return sorted(set.intersection(*(set(passing(ask(calls, [t], *columns))) for t in terms)))


def test_rows_are_those_that_pass_every_term(calls):
    expected = each(calls, GOOD, RARE)
    assert expected
    for terms in ([GOOD, RARE], [RARE, GOOD]):
        rows = ask(calls, terms, TEXTS)
        assert passing(rows) == expected
        assert len(calls.lines()) == len(set(calls.lines())) == sum(row["usage"]["calls"] for row in rows)


def test_the_predicate_that_refuses_most_is_asked_first_and_the_sample_once(calls):
    rare = len(passing(ask(calls, [RARE], TEXTS)))
    as_written = {"spark.llm.optimize.predicates.sampleRows": "0"}
    ask(calls, [GOOD, RARE], TEXTS, conf=as_written | {"spark.llm.window.rows": "400"})
    assert calls.count > 400 + 2 * rare
    ask(calls, [GOOD, RARE], TEXTS, conf={"spark.llm.window.rows": "400"})
    assert calls.count <= 400 + rare + 32
    assert len(set(calls.lines())) == calls.count


def test_cost_counts_beside_selectivity(calls):
    """Two predicates that refuse alike: the one over the short field is asked first."""
    long, short = term("Long?", (0,)), term("Short?", (1,))
    columns = [text * 100 for text in TEXTS], TEXTS
    rows = ask(calls, [long, short], *columns, conf={"spark.llm.window.rows": "400"})
    assert passing(rows) == each(calls, long, short, columns=columns)
    unsampled = {"spark.llm.optimize.predicates.sampleRows": "0"}
    as_written = ask(calls, [long, short], *columns, conf=unsampled)
    asked, before = (sum(row["usage"]["prompt"] for row in some) for some in (rows, as_written))
    assert asked < 0.8 * before


@pytest.mark.parametrize("limit", [1, 3, 20])
def test_a_limit_stops_early_and_keeps_right_rows(calls, limit):
    right = each(calls, GOOD)
    rows = ask(calls, [GOOD], TEXTS, limit=limit)
    assert passing(rows) == right[:limit]
    assert calls.count <= 5 * limit + 3
    two = ask(calls, [GOOD, RARE], TEXTS, limit=limit)
    assert passing(two) == each(calls, GOOD, RARE)[:limit]


def test_a_limit_that_is_never_reached_asks_all_rows(calls):
    assert passing(ask(calls, [GOOD], TEXTS, limit=1000)) == each(calls, GOOD)


def test_nulls_and_failures_pass_nothing(calls):
    nulls = [None, "x", None]
    rows = ask(calls, [GOOD, term("Bad?", test="not in")], nulls)
    assert rows[0]["value"] is None
    assert calls.count <= 2
    failing = ask(calls, [GOOD], ["boom"], conf=stub_conf(calls.folder, fail_marker="boom"))
    assert failing[0]["value"] is None
    assert failing[0]["error"]["condition"] == "LLM_ROW_FAILED"


@pytest.mark.parametrize("test", list(COMPARISONS))
def test_tests_of_numbers(calls, test):
    options, conf = {"returns": "INT"}, stub_conf(calls.folder)
    plain = CallSpec("llm", "Score", (Field("f0"),), options, "integer", conf)
    [answers] = bind(plain.to_json())(iter([(pa.array(TEXTS[:30]),)]))
    values = answers.field("value").to_pylist()
    bound = sorted(values)[15]
    expected = [i for i, value in enumerate(values) if COMPARISONS[test](value, bound)]
    assert passing(ask(calls, [Term(plain, (0,), ((test, (bound,)),))], TEXTS[:30])) == expected


def test_growing_windows_without_terms(calls):
    """Where the executor cannot judge the answers, it asks as they are read."""
    spec = CallSpec("llm", "Q", (Field("f0"),), {}, "string", stub_conf(calls.folder), limit=2)
    answers = bind(spec.to_json())(iter([(pa.array(TEXTS),)]))
    sizes = [len(next(answers)) for _ in range(3)]
    assert sizes == [2, 4, 8]
    assert calls.count == 14
