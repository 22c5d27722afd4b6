"""vLLM behind the worker, in its own Python, against the native engine on the same checkpoint."""

import json
import os
from pathlib import Path

import pytest
from spark_llm.serving.core import Call, Constraint, ModelRef, Request
from spark_llm.serving.engines import create_engine
from spark_llm.serving.local import LocalExchange

from tests.serving.native_checkpoints import write_checkpoint
from tests.serving.worker_kit import drain, failure_of, requests

PYTHON = Path(os.environ.get("SPARK_LLM_VLLM_PYTHON", Path(__file__).parents[2] / ".venvs" / "vllm" / "bin" / "python"))
needs_vllm = pytest.mark.skipif(not PYTHON.exists(), reason=f"no Python with vLLM at {PYTHON}")
SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"kind": {"enum": ["drama", "comedy"]}, "good": {"type": "boolean"}},
        "required": ["kind", "good"],
        "additionalProperties": False,
    }
)
CONSTRAINTS = {
    "free text": Constraint(),
    "choices": Constraint("choices", ["positive", "negative", "mixed"]),
    "regex": Constraint("regex", "[0-9]{3}-[a-c]{2}"),
    "json": Constraint("json_schema", SCHEMA),
}
ROWS = [(f'"review": "{"a warm and funny film " * 4}",\n', f'"title": "The Lighthouse {i}"\n}}') for i in range(12)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    # vLLM's attention for CPUs needs heads of 32 dimensions
    return write_checkpoint(tmp_path_factory.mktemp("model"), hidden_size=128)


def model(checkpoint, engine, **args):
    python = str(PYTHON) if engine == "vllm" else ""
    common = {"dtype": "float32", "kv_tokens": 4096, "max_length": 512}
    return ModelRef(str(checkpoint), engine, python, {**common, **args})


def call_with(constraint):
    return Call("c", "Is it good?\n\n{\n", system="Be brief.", max_tokens=30, constraint=constraint)


def answers(exchange, call):
    with exchange:
        exchange.submit([Request(i, call, row) for i, row in enumerate(ROWS)])
        rows = drain(exchange, len(ROWS))
    return [rows[i] for i in range(len(ROWS))]


@needs_vllm
def test_vllm_answers_as_the_native_engine_does(worker, checkpoint):
    native = create_engine(model(checkpoint, "native", threads=1))
    for name, constraint in CONSTRAINTS.items():
        call = call_with(constraint)
        expected = answers(LocalExchange(native, call), call)
        rows = answers(worker.exchange(call, model=model(checkpoint, "vllm")), call)
        assert [row.usage.prompt for row in rows] == [row.usage.prompt for row in expected], name
        if name == "json":  # vLLM writes JSON without spaces, so the tokens differ
            values = [json.loads(row.text) for row in rows]
            assert all(value["kind"] in {"drama", "comedy"} and value["good"] in {True, False} for value in values)
        else:
            assert [(r.text, r.finish_reason) for r in rows] == [(r.text, r.finish_reason) for r in expected], name
    assert all(row.usage.cached >= 32 for row in rows), "the fourth call finds the third one's prefixes"

    call = Call("c", "x " * 600)
    with worker.exchange(call, model=model(checkpoint, "vllm")) as exchange:
        exchange.submit(requests(call, ["too long"]))
        assert drain(exchange, 1)[0].error.condition == "LLM_PROMPT_TOO_LONG"
    call = call_with(Constraint("regex", "("))
    with worker.exchange(call, model=model(checkpoint, "vllm")) as exchange:
        exchange.submit(requests(call, ["a"]))
        assert drain(exchange, 1)[0].error.condition == "LLM_BAD_CONSTRAINT"
    capacity = worker.client.stats()["models"][0]["capacity"]
    assert (capacity["kv_tokens"], capacity["max_length"]) == (4096, 512)


@needs_vllm
def test_unknown_settings_are_named(worker, checkpoint):
    def ask():
        with worker.exchange(model=model(checkpoint, "vllm", kv_tokenz=1)) as exchange:
            exchange.submit(requests(Call("c", "p"), ["a"]))
            drain(exchange, 1)

    failure = failure_of(ask)
    assert failure.condition == "LLM_BAD_CONF"
    assert "'kv_tokenz'" in failure.message
    assert "kv_tokens" in failure.message


def test_a_python_without_vllm_is_told_so(checkpoint):
    try:
        import vllm  # noqa: F401
    except ImportError:
        failure = failure_of(lambda: create_engine(ModelRef(str(checkpoint), "vllm")))
        assert failure.condition == "LLM_ENGINE_START"
        assert "needs vLLM 0.32" in failure.message
        assert "spark.llm.engine.vllm.python" in failure.remedy
    else:
        pytest.skip("this Python has vLLM")
