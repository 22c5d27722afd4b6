"""A task of a call, on the stub engine in process: rows, counts, errors, memory."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spark_llm.optimizer.core import CallSpec, Field

from spark_llm.errors import LlmError
from spark_llm.executor.udf import bind
from tests.conftest import stub_conf

TEXT = Field("a")
STRUCT = {
    "type": "struct",
    "fields": [
        {"name": n, "type": t, "nullable": True, "metadata": {}} for n, t in [("n", "integer"), ("s", "string")]
    ],
}


def ask(
    calls, *columns, function="llm", instruction="Q", fields=None, options=None, result_type="string", conf=(), **engine
):
    fields = fields or tuple(Field(f"f{i}") for i in range(len(columns)))
    settings = {**stub_conf(calls.folder, **engine), **dict(conf)}
    spec = CallSpec(function, instruction, fields, options or {}, result_type, settings)
    arrays = [pa.array(column, pa.string()) for column in columns]
    batches = [tuple(a.slice(i, 7) for a in arrays) for i in range(0, max(len(arrays[0]), 1), 7)]
    pieces = list(bind(spec.to_json())(iter(batches)))
    return [row for piece in pieces for row in piece.to_pylist()]


VALUES = st.one_of(st.none(), st.sampled_from(["", "x", "X", "é", "e\u0301", '"', "}\n"]))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=40), window=st.integers(1, 12))
def test_rows_and_counts(calls, rows, window):
    calls.reset()
    columns = list(zip(*rows, strict=True))
    answers = ask(calls, *columns, conf={"spark.llm.window.rows": str(window)})
    asked = {row for row in rows if row != (None, None)}
    assert calls.count == len(asked)
    naive = {row: ask(calls, *([value] for value in row))[0]["value"] for row in set(rows)}
    assert [a["value"] for a in answers] == [naive[row] for row in rows]
    assert sum(a["usage"]["calls"] for a in answers) == len(asked)


def test_a_question_behind_the_record_is_asked_whole(calls):
    [answer] = ask(calls, ["x"], conf={"spark.llm.prompt.question": "last"}, echo=True)
    assert answer["value"] == '{\n"f0": "x"\n}\n\nQ'


def test_all_null_is_not_asked_but_one_value_is(calls):
    answers = ask(calls, [None, None], [None, "b"])
    assert [a["value"] is None for a in answers] == [True, False]
    assert calls.count == 1


def test_typed_values(calls):
    rows = ask(calls, ["x", "y"], function="llm_extract", options={"returns": "n INT, s STRING"}, result_type=STRUCT)
    assert all(set(row["value"]) == {"n", "s"} for row in rows)
    assert all(isinstance(row["value"]["n"], int | None) for row in rows)
    assert {row["value"] for row in ask(calls, ["p", "q", "r", "s"], function="llm_filter", result_type="boolean")} <= {
        True,
        False,
    }


def test_a_failed_row_is_null_with_its_error(calls):
    bad, good = ask(calls, ["boom", "fine"], fail_marker="boom")
    assert bad["value"] is None
    assert bad["error"]["condition"] == "LLM_ROW_FAILED"
    assert good["error"] is None
    assert good["value"]


def test_a_misfit_is_an_error_not_a_value(calls):
    [row] = ask(calls, ["secret"], options={"returns": "INT"}, result_type="integer", echo=True)
    assert row["value"] is None
    assert row["error"]["condition"] == "LLM_ANSWER_MISFIT"
    assert "secret" not in row["error"]["message"]


def test_too_many_errors_fail_the_call(calls):
    values = [f"{'boom' if i % 20 == 0 else 'ok'} {i}" for i in range(300)]
    with pytest.raises(LlmError, match=r"LLM_ERROR_RATE.*maxErrorRate = 0\.01"):
        ask(calls, values, fail_marker="boom")
    rows = ask(calls, values, fail_marker="boom", conf={"spark.llm.maxErrorRate": "0.1"})
    assert sum(row["error"] is not None for row in rows) == 15


def test_on_error_fail(calls):
    with pytest.raises(LlmError, match="LLM_ON_ERROR_FAIL"):
        ask(calls, ["ok", "boom"], options={"on_error": "fail"}, fail_marker="boom")


def test_invalid_bytes_fail_their_row_only(calls):
    raw = pa.array([b"ok", b"\xff"], pa.binary())
    column = pa.Array.from_buffers(pa.string(), 2, raw.buffers())
    spec = CallSpec("llm", "Q", (TEXT,), {}, "string", stub_conf(calls.folder))
    [piece] = bind(spec.to_json())(iter([(column,)]))
    good, bad = piece.to_pylist()
    assert good["error"] is None
    assert bad["error"]["condition"] == "LLM_INVALID_UTF8"
    assert "'a'" in bad["error"]["message"]


def test_sampling_without_seed_asks_every_row_and_with_seed_once(calls):
    ask(calls, ["x"] * 5, options={"temperature": 0.7})
    assert calls.count == 5
    calls.reset()
    rows = ask(calls, ["x"] * 5, options={"temperature": 0.7, "seed": 3})
    assert calls.count == 1
    assert len({row["value"] for row in rows}) == 1
    assert rows[0]["value"] != ask(calls, ["x"], options={"temperature": 0.7, "seed": 4})[0]["value"]


def test_prompts_are_the_rows(calls):
    [row] = ask(calls, ["héllo\n"], ['{"v":[1,null]}'], fields=(TEXT, Field("b", "json")), echo=True)
    assert json.loads(row["value"][row["value"].index("{") :]) == {"a": "héllo\n", "b": [1, None]}


def test_an_empty_partition_gives_nothing(calls):
    spec = CallSpec("llm", "Q", (TEXT,), {}, "string", stub_conf(calls.folder))
    assert list(bind(spec.to_json())(iter([]))) == []


def test_at_most_two_windows_are_read_ahead(calls):
    spec = CallSpec("llm", "Q", (TEXT,), {}, "string", {**stub_conf(calls.folder), "spark.llm.window.rows": "10"})
    read = 0

    def batches():
        nonlocal read
        for i in range(100):
            read += 10
            yield (pa.array([f"{i}-{k}" for k in range(10)]),)

    given_back = 0
    for piece in bind(spec.to_json())(batches()):
        given_back += len(piece)
        assert read - given_back <= 20
    assert given_back == 1000


def test_the_pandas_form_answers_the_same(calls):
    import pandas as pd

    spec = CallSpec("llm", "Q", (TEXT, Field("b")), {}, "string", stub_conf(calls.folder)).to_json()
    [frame] = bind(spec)(iter([(pd.Series(["x", None]), pd.Series(["y", None]))]))
    [arrow] = bind(spec)(iter([(pa.array(["x", None]), pa.array(["y", None], pa.string()))]))
    for ours, theirs in zip(frame.to_dict("records"), arrow.to_pylist(), strict=True):
        assert (ours["value"], ours["error"]) == (theirs["value"], theirs["error"])
        assert ours["usage"]["calls"] == theirs["usage"]["calls"]


def test_an_unknown_setting_names_the_near_one(calls):
    with pytest.raises(LlmError, match=r"spark\.llm\.modle.*did you mean spark\.llm\.model"):
        ask(calls, ["x"], conf={"spark.llm.modle": "m"})


def test_a_prompt_beyond_its_limit_is_an_error_of_its_row(calls):
    rows = ask(calls, ["x" * 10, "x" * 500, None], conf={"spark.llm.limit.promptBytes": "100"}, options={})
    assert [row["error"] and row["error"]["condition"] for row in rows] == [None, "LLM_LIMIT_EXCEEDED", None]
    assert "spark.llm.limit.promptBytes = 100" in rows[1]["error"]["message"]
    assert rows[1]["error"]["attempts"] == 0
    assert calls.count == 1


def test_a_call_that_asks_for_longer_answers_than_allowed_is_refused(calls):
    with pytest.raises(LlmError, match=r"spark\.llm\.limit\.outputTokens = 100"):
        ask(calls, ["x"], options={"max_tokens": 101}, conf={"spark.llm.limit.outputTokens": "100"})
    with pytest.raises(LlmError, match="LLM_LIMIT_EXCEEDED"):
        ask(calls, ["x"], conf={"spark.llm.limit.rows": "0", "spark.llm.limit.outputTokens": "100"})
    assert calls.count == 0


def test_rows_and_time_are_limited_in_process_too(calls):
    with pytest.raises(LlmError, match=r"spark\.llm\.limit\.rows = 2"):
        ask(calls, ["a", "b", "c"], conf={"spark.llm.limit.rows": "2"})
    with pytest.raises(LlmError, match=r"spark\.llm\.limit\.seconds = 0\.2"):
        ask(calls, list("abcdef"), conf={"spark.llm.limit.seconds": "0.2"}, delay_ms=100, batch=1)
