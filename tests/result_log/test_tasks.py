"""The log in a task, on the stub engine in process: what is asked, what is stored, what another attempt finds."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from spark_llm.optimizer.core import CallSpec, Field
from spark_llm.optimizer.identity import IdentityRule
from spark_llm.optimizer.prompts import prepare

from spark_llm import plain
from spark_llm.errors import LlmError
from spark_llm.executor.udf import bind
from spark_llm.planner import log as locate
from spark_llm.result_log.call import call_folder
from tests.conftest import stub_conf
from tests.serving.worker_kit import Worker


@pytest.fixture
def conf(calls, tmp_path):
    return {**stub_conf(calls.folder), "spark.llm.resultLog.path": str(tmp_path / "log")}


def spec_of(conf, *names, **changes) -> CallSpec:
    spec = CallSpec("llm", "Q", tuple(Field(name) for name in names), conf=conf)
    return dataclasses.replace(spec, **changes)


def ask(spec, *columns):
    arrays = tuple(pa.array(column, pa.string()) for column in columns)
    return [row for piece in bind(spec.to_json())(iter([arrays])) for row in piece.to_pylist()]


def values(rows):
    return [row["value"] for row in rows]


def known(rows) -> int:
    return sum(row["usage"]["known"] for row in rows)


TEXTS = [f"t{i}" for i in range(300)]


def test_off_by_default(calls, tmp_path):
    ask(spec_of(stub_conf(calls.folder), "a"), ["x"])
    assert not (tmp_path / "log").exists()


def test_a_later_task_asks_only_what_is_missing(calls, conf):
    first = ask(spec_of(conf, "a"), TEXTS[:200])
    calls.reset()
    second = ask(spec_of(conf, "a"), TEXTS[100:])
    assert calls.count == 100
    assert known(second) == 100
    assert values(second)[:100] == values(first)[100:]


def test_nothing_is_started_where_all_is_known(calls, conf, monkeypatch):
    ask(spec_of(conf, "a"), TEXTS)

    def refuse(*_):
        raise AssertionError

    monkeypatch.setattr("spark_llm.executor.runner.open_exchange", refuse)
    assert known(ask(spec_of(conf, "a"), TEXTS)) == 300


def test_fields_in_another_order_are_the_same_question_unless_fixed(calls, conf):
    ask(spec_of(conf, "a", "b"), ["x"], ["y"])
    assert known(ask(spec_of(conf, "b", "a"), ["y"], ["x"])) == 1
    fixed = {"options": {"field_order": "fixed"}}
    ask(spec_of(conf, "a", "b", **fixed), ["x"], ["y"])
    assert known(ask(spec_of(conf, "b", "a", **fixed), ["y"], ["x"])) == 0


@pytest.mark.parametrize(
    "change",
    [
        {"instruction": "R"},
        {"options": {"max_tokens": 9}},
        {"options": {"seed": 1}},
        {"options": {"system": "s"}},
        {"options": {"model": "other"}},
        {"options": {"returns": "INT"}, "result_type": "integer"},
        {"options": {"returns": "BIGINT"}, "result_type": "long"},
        {"fields": (Field("b"),)},
        {"fields": (Field("a", "prompt"),)},
    ],
)
def test_other_questions_do_not_mix(calls, conf, change):
    ask(spec_of(conf, "a"), ["1"])
    if change.get("result_type") == "long":
        ask(spec_of(conf, "a", options={"returns": "INT"}, result_type="integer"), ["1"])
    assert known(ask(spec_of(conf, "a", **change), ["1"])) == 0


def test_samples_never_enter(calls, conf, tmp_path):
    spec = spec_of(conf, "a", options={"temperature": 0.7})
    ask(spec, TEXTS)
    assert not (tmp_path / "log").exists()
    seeded = spec_of(conf, "a", options={"temperature": 0.7, "seed": 3})
    first = ask(seeded, TEXTS)
    assert known(second := ask(seeded, TEXTS)) == 300
    assert values(first) == values(second)


def test_errors_are_asked_again(calls, conf):
    conf |= {"spark.llm.engine.args": json.dumps({"calls_dir": str(calls.folder), "fail_marker": "boom"})}
    ask(spec_of(conf, "a"), ["fine", "boom"])
    calls.reset()
    rows = ask(spec_of(conf, "a"), ["fine", "boom"])
    assert (known(rows), calls.count) == (1, 1)
    misfit = {"options": {"returns": "INT"}, "result_type": "integer"}
    conf |= {"spark.llm.engine.args": json.dumps({"calls_dir": str(calls.folder), "echo": True})}
    assert known(ask(spec_of(conf, "a", **misfit), ["x"])) == known(ask(spec_of(conf, "a", **misfit), ["x"])) == 0


def test_typed_answers_are_the_same_when_read(calls, conf):
    ddl = "n INT, s STRING, d DATE, m DECIMAL(9,2), l ARRAY<DOUBLE>"
    types = [("n", "integer"), ("s", "string"), ("d", "date"), ("m", "decimal(9,2)")]
    array = {"type": "array", "elementType": "double", "containsNull": True}
    struct = {
        "type": "struct",
        "fields": [{"name": n, "type": t, "nullable": True, "metadata": {}} for n, t in [*types, ("l", array)]],
    }
    spec = spec_of(conf, "a", function="llm_extract", options={"returns": ddl}, result_type=struct)
    first, second = ask(spec, TEXTS[:50]), ask(spec, TEXTS[:50])
    good = [row["value"] for row in first if row["error"] is None]
    assert good
    assert known(second) == len(good)
    assert values(first) == values(second)


def test_a_task_that_is_stopped_keeps_what_it_has(calls, conf):
    conf |= {"spark.llm.window.rows": "50"}
    batches = ((pa.array(TEXTS[i : i + 50]),) for i in range(0, 300, 50))
    running = bind(spec_of(conf, "a").to_json())(batches)
    assert len(next(running)) == 50
    asked = calls.count
    running.close()
    assert known(ask(spec_of(conf, "a"), TEXTS)) == calls.count - (300 - asked) == asked


def test_another_attempt_of_a_joined_task_finds_what_the_first_wrote(calls, conf):
    rule = IdentityRule.of(prepare(spec_of(conf, "a")))
    folder = call_folder(spec_of(conf, "a"), rule)
    joined = spec_of(conf, "a", log={"folder": folder, "since": 0.0, "joined": True})
    ask(joined, TEXTS[:100], [None] * 100)
    calls.reset()
    again = ask(joined, TEXTS, [None] * 300)
    assert (known(again), calls.count) == (100, 200)
    later = dataclasses.replace(joined, log={"folder": folder, "since": 4e9, "joined": True})
    assert known(ask(later, TEXTS, [None] * 300)) == 0


@pytest.mark.slow
def test_a_speculative_copy_of_a_task_pays_for_nothing(calls, conf):
    """Two attempts of one task at once, as speculative execution has them: the worker asks once, the log keeps one."""
    with tempfile.TemporaryDirectory(prefix="llm-") as folder:
        args = json.dumps({"calls_dir": str(calls.folder), "delay_ms": 20, "batch": 16})
        conf |= {"spark.llm.placement": "worker", "spark.llm.worker.dir": folder, "spark.llm.engine.args": args}
        spec = spec_of({**conf, "spark.app.id": "app"}, "a")
        try:
            with ThreadPoolExecutor(2) as pool:
                one, other = pool.map(lambda _: ask(spec, TEXTS), range(2))
        finally:
            Worker(Path(folder)).client.shutdown()
    assert values(one) == values(other)
    assert calls.count == 300
    assert known(again := ask(spec_of(conf, "a"), TEXTS)) == 300
    assert values(again) == values(one)


def test_joined_answers_are_taken_and_misfits_asked(calls, conf):
    spec = spec_of(conf, "a", log={"folder": "0" * 32, "since": 0.0, "joined": True})
    assert values(ask(spec, ["x", "x", None], ["known", "known", None]))[:2] == ["known", "known"]
    number = dataclasses.replace(spec, options={"returns": "INT"}, result_type="integer")
    rows = ask(number, ["x", "y"], ["no number", "7"])
    assert rows[1]["value"] == 7
    assert (known(rows), calls.count) == (1, 1)


def test_the_plain_way_reads_and_writes_it_too(calls, conf):
    batch = (
        pa.array(["Q"] * 3),
        pa.StructArray.from_arrays([pa.array(["x", "y", "x"]), pa.array([1, 2, 1])], ["a", "n"]),
    )
    [first] = plain.answer("llm", conf, [batch])
    calls.reset()
    [second] = plain.answer("llm", conf, [batch])
    assert calls.count == 0
    assert first == second


def test_an_unreadable_log_costs_its_answers_only(calls, conf, tmp_path, capfd):
    (tmp_path / "log").write_text("no folder")
    assert None not in values(ask(spec_of(conf, "a"), ["x"]))
    assert "LLM_RESULT_LOG" in capfd.readouterr().err
    with pytest.raises(LlmError, match="LLM_BAD_CONF"):
        ask(spec_of({**conf, "spark.llm.resultLog.path": "here/there"}, "a"), ["x"])


def test_the_planner_says_where_a_call_lies(conf):
    spec = spec_of(conf, "b", "a")
    [place] = locate({"calls": [json.loads(spec.to_json())]})["calls"]
    assert (len(place["folder"]), len(place["base"]), place["fields"]) == (32, 64, [1, 0])
    gone = spec_of({**conf, "spark.llm.engine": "native", "spark.llm.model": "/no/such/model"}, "a")
    assert "unseen" in locate({"calls": [json.loads(gone.to_json())]})["calls"][0]
    bad = spec_of({**conf, "spark.llm.resultLog.path": "here"}, "a")
    assert "LLM_BAD_CONF" in locate({"calls": [json.loads(bad.to_json())]})["refused"]
