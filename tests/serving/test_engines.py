"""One suite for every engine that computes: native, and vLLM in its own Python, each behind a worker."""

import json
import os
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
from spark_llm.serving.core import Call, Constraint, ModelRef, Request, Terms
from spark_llm.serving.prompt import PromptComposer
from spark_llm.serving.tokenizer import Tokenizer
from spark_llm.serving.worker.metrics import prometheus_text

from tests.serving.native_checkpoints import oracle, oracle_greedy, write_checkpoint
from tests.serving.worker_kit import Worker, drain, failure_of, requests, wait_until

PYTHON = Path(os.environ.get("SPARK_LLM_VLLM_PYTHON", Path(__file__).parents[2] / ".venvs" / "vllm" / "bin" / "python"))
needs_vllm = pytest.mark.skipif(not PYTHON.exists(), reason=f"no Python with vLLM at {PYTHON}")
ENGINES = ["native", pytest.param("vllm", marks=[needs_vllm, pytest.mark.slow])]
CALL = Call("c", "Is it good?\n\n{\n", system="Be brief.", max_tokens=12)
ROWS = [(f'"review": "{"a warm and funny film " * 4}",\n', f'"title": "The Lighthouse {i}"\n}}') for i in range(8)]
SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"kind": {"enum": ["drama", "comedy"]}, "good": {"type": "boolean"}},
        "required": ["kind", "good"],
        "additionalProperties": False,
    }
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    # vLLM's attention for CPUs needs heads of 32 dimensions
    return write_checkpoint(tmp_path_factory.mktemp("model"), hidden_size=128)


class Door:
    """A worker with one engine and one model behind it."""

    def __init__(self, engine, checkpoint, **args):
        self.worker = Worker(Path(tempfile.mkdtemp(prefix="llm-")), start_seconds=300.0, idle_seconds=300.0)
        common = {"dtype": "float32", "kv_tokens": 4096, "max_length": 512, "max_running": 4, "quantum": 64}
        python = str(PYTHON) if engine == "vllm" else ""
        self.model = ModelRef(str(checkpoint), engine, python, {**common, **args})
        self.executions = 0

    def open(self, call, execution="", **options):
        self.executions += 1  # a query of its own: answers are remembered within one
        return self.worker.exchange(call, execution=execution or str(self.executions), model=self.model, **options)

    def ask(self, call, rows, *, pool="default", isolation="pool", **fields):
        with self.open(call, pool=pool, terms=Terms(isolation=isolation)) as exchange:
            exchange.submit([Request(i, call, row, **fields) for i, row in enumerate(rows)])
            answered = drain(exchange, len(rows))
        return [answered[i] for i in range(len(rows))]

    def counters(self):
        return self.worker.client.stats()["models"][0]["counters"]

    def is_settled(self):
        """Whether the counters, which the engine's process sends now and then, are those after the last query."""
        before = self.worker.client.stats()
        time.sleep(1.0)
        stats = self.worker.client.stats()
        asked = [client["streams"] + client["running"] + client["queued"] for client in stats["clients"]]
        return not any(asked) and stats["models"][0]["counters"] == before["models"][0]["counters"]


@pytest.fixture(scope="module", params=ENGINES)
def door(request, checkpoint):
    made = Door(request.param, checkpoint)
    with made.open(CALL) as exchange:
        exchange.submit(requests(CALL, ["a"]))
        drain(exchange, 1, seconds=300.0)  # until the model is loaded
    yield made
    made.worker.client.shutdown()
    wait_until(lambda: made.worker.rendezvous.read() is None)
    shutil.rmtree(made.worker.folder, ignore_errors=True)


@pytest.fixture(scope="module")
def expected(checkpoint):
    """Prompts and greedy answers of the rows, by transformers."""
    tokenizer = Tokenizer(checkpoint)
    composer, model = PromptComposer(checkpoint, tokenizer), oracle(checkpoint)
    prompts = [composer.compose(Request(i, CALL, row)).tolist() for i, row in enumerate(ROWS)]
    tokens = [oracle_greedy(model, prompt, CALL.max_tokens) for prompt in prompts]
    return [
        (len(prompt), tokenizer.decode(answer), len(answer)) for prompt, answer in zip(prompts, tokens, strict=True)
    ]


def test_greedy_answers_are_those_of_transformers(door, expected):
    rows = door.ask(CALL, ROWS)
    assert [row.text for row in rows] == [text for _, text, _ in expected]
    assert [row.usage.prompt for row in rows] == [prompt for prompt, _, _ in expected]
    assert {row.finish_reason for row in rows} <= {"stop", "length"}


def test_prefixes_are_cached_across_queries(door):
    door.ask(CALL, ROWS)
    assert all(row.usage.cached >= 32 for row in door.ask(CALL, ROWS))


@pytest.mark.parametrize("isolation", ["pool", "none"])
def test_pools_share_cached_prefixes_only_where_they_are_not_kept_apart(door, isolation):
    call = replace(CALL, instruction=f"{isolation}: is it a comedy, a drama or a documentary, would you say?")
    one, two, again = (door.ask(call, ROWS[:1], pool=pool, isolation=isolation)[0] for pool in ("a", "b", "a"))
    assert one.usage.cached < 32 <= again.usage.cached
    assert (two.usage.cached >= 32) == (isolation == "none")
    assert one.text == two.text == again.text


def test_choices_and_regular_expressions_hold(door):
    choices = ["positive", "negative", "mixed"]
    assert {row.text for row in door.ask(replace(CALL, constraint=Constraint("choices", choices)), ROWS)} <= {*choices}
    rows = door.ask(replace(CALL, constraint=Constraint("regex", "[0-9]{3}-[a-c]{2}")), ROWS)
    assert all(row.text[3] == "-" and set(row.text[4:]) <= set("abc") and row.text[:3].isdigit() for row in rows)


def test_json_follows_its_schema(door):
    call = replace(CALL, max_tokens=40, constraint=Constraint("json_schema", SCHEMA))
    values = [json.loads(row.text) for row in door.ask(call, ROWS)]
    assert all(value["kind"] in {"drama", "comedy"} and value["good"] in {True, False} for value in values)


def test_draws_depend_on_the_seed_alone(door):
    call = replace(CALL, temperature=1.0)
    first, again, other = (door.ask(call, ROWS[:3], seed=seed) for seed in (7, 7, 8))
    assert [row.text for row in first] == [row.text for row in again]
    assert [row.text for row in first] != [row.text for row in other]


def test_answers_end_at_a_stop_string_and_at_the_limit(door, expected):
    _, text, length = expected[0]
    ends_at = text[len(text) // 2]
    stopped = door.ask(replace(CALL, stop=(ends_at,)), ROWS[:1])[0]
    assert stopped.text == text[: text.index(ends_at)]
    assert stopped.finish_reason == "stop"
    cut = door.ask(replace(CALL, max_tokens=3), ROWS[:1])[0]
    assert length > 3
    assert (cut.usage.output, cut.finish_reason) == (3, "length")


def test_rows_that_cannot_be_asked_fail_alone(door):
    rows = door.ask(CALL, [("x " * 600,), ROWS[0], ("y " * 600,)])
    assert [row.error and row.error.condition for row in rows] == ["LLM_PROMPT_TOO_LONG", None, "LLM_PROMPT_TOO_LONG"]
    bad = door.ask(replace(CALL, constraint=Constraint("regex", "(")), ROWS[:1])[0]
    assert bad.error.condition == "LLM_BAD_CONSTRAINT"
    adapter = door.ask(CALL, ROWS[:1], adapter="/adapters/a")[0]
    assert adapter.error.condition == "LLM_ROW_FAILED"
    assert "adapters" in adapter.error.message


def test_cancelled_requests_leave_nothing_behind(door):
    call = replace(CALL, max_tokens=300)
    with door.open(call) as exchange:
        exchange.submit(requests(call, [f"film {i}" for i in range(40)]))
    wait_until(lambda: door.counters()["running"] == door.counters()["waiting"] == 0, seconds=60)
    assert door.ask(CALL, ROWS[:1])[0].error is None


def test_a_small_query_does_not_wait_behind_a_large_one(door):
    with door.open(CALL, "heavy") as heavy, door.open(CALL, "light") as light:
        heavy.submit(requests(CALL, [f"film {i}" for i in range(120)]))
        heavy.poll(60.0)
        light.submit(requests(CALL, [f"book {i}" for i in range(6)]))
        drain(light, 6)
        served = {client["client"]: client["rows"] for client in door.worker.client.stats()["clients"]}
        assert served["app/light"] == 6
        assert served["app/heavy"] < 80, "it took its turn among 120 rows that came before"
        heavy.cancel()


def test_capacity_and_counters_are_reported(door, expected):
    wait_until(door.is_settled)
    before = door.counters()
    rows = door.ask(CALL, ROWS)
    prompts = before["prompt_tokens"] + sum(prompt for prompt, _, _ in expected)
    wait_until(lambda: door.counters()["prompt_tokens"] == prompts and not door.counters()["running"])
    counters = door.counters()
    assert counters["cached_tokens"] - before["cached_tokens"] == sum(row.usage.cached for row in rows)
    assert counters["steps"] > before["steps"]
    assert 0 <= counters["kv_usage"] <= 1
    assert {"running", "waiting", "refills"} <= counters.keys()
    metrics = prometheus_text(door.worker.client.stats())
    assert all(f"spark_llm_engine_{name}{{" in metrics for name in ("cached_tokens", "running", "waiting", "kv_usage"))
    capacity = door.worker.client.stats()["models"][0]["capacity"]
    assert (capacity["kv_tokens"], capacity["max_length"], capacity["max_running"]) == (4096, 512, 4)


@pytest.mark.parametrize("engine", ENGINES)
def test_wrong_settings_are_named(checkpoint, engine, make_worker):
    model = ModelRef(str(checkpoint), engine, str(PYTHON) if engine == "vllm" else "", {"kv_tokenz": 1})

    def ask():
        with make_worker(start_seconds=300.0).exchange(CALL, model=model) as exchange:
            exchange.submit(requests(CALL, ["a"]))
            drain(exchange, 1, seconds=300.0)

    failure = failure_of(ask)
    assert failure.condition == "LLM_BAD_CONF"
    assert "'kv_tokenz'" in failure.message
    assert "kv_tokens" in failure.message
    assert "policy" in failure.message
