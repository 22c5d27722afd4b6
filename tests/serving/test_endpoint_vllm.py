"""The endpoint engine, behind the worker, against a real `vllm serve` on the CPU, beside the native engine."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from spark_llm.serving.core import Call, Constraint, ModelRef, Request
from spark_llm.serving.engines import create_engine
from spark_llm.serving.local import LocalExchange

from tests.serving.native_checkpoints import write_checkpoint
from tests.serving.worker_kit import drain, failure_of, requests, wait_until

PYTHON = Path(os.environ.get("SPARK_LLM_VLLM_PYTHON", Path(__file__).parents[2] / ".venvs" / "vllm" / "bin" / "python"))
pytestmark = [pytest.mark.skipif(not PYTHON.exists(), reason=f"no Python with vLLM at {PYTHON}"), pytest.mark.slow]
SCHEMA = {
    "type": "object",
    "properties": {"kind": {"enum": ["drama", "comedy"]}, "good": {"type": "boolean"}},
    "required": ["kind", "good"],
    "additionalProperties": False,
}
CONSTRAINTS = {
    "free text": Constraint(),
    "choices": Constraint("choices", ["positive", "negative", "mixed"]),
    "regex": Constraint("regex", "[0-9]{3}-[a-c]{2}"),
    "json": Constraint("json_schema", json.dumps(SCHEMA)),
}
ROWS = [(f'"review": "{"a warm and funny film " * 4}",\n', f'"title": "The Lighthouse {i}"\n}}') for i in range(12)]
KEY = "key-of-the-loopback-server"
MODEL, LENGTH = "tiny", 512
OPTIONS = ["--dtype", "float32", "--enforce-eager", "--max-model-len", str(LENGTH), "--block-size", "32"]
COMPACT_JSON = ["--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}']
START_SECONDS = 300


def call_with(constraint):
    return Call("c", "Is it good?\n\n{\n", system="Be brief.", max_tokens=30, constraint=constraint)


def answers(exchange, call):
    with exchange:
        exchange.submit([Request(i, call, row) for i, row in enumerate(ROWS)])
        rows = drain(exchange, len(ROWS))
    return [rows[i] for i in range(len(ROWS))]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("model"), hidden_size=128)


@pytest.fixture(scope="module")
def url(checkpoint, tmp_path_factory):
    """Base URL of `vllm serve`, which ends with the module."""
    port = free_port()
    command = [str(PYTHON), "-m", "vllm.entrypoints.openai.api_server", "--model", str(checkpoint)]
    command += ["--served-model-name", MODEL, "--host", "127.0.0.1", "--port", str(port), *OPTIONS]
    command += ["--enable-prompt-tokens-details", "--max-num-seqs", "16", *COMPACT_JSON]
    environment = {
        **os.environ,
        "VLLM_API_KEY": KEY,
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    log = tmp_path_factory.mktemp("vllm") / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
    base = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START_SECONDS
        while not is_healthy(base):
            assert server.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, "vllm serve did not start"
            time.sleep(0.5)
        yield f"{base}/v1"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def is_healthy(base):
    try:
        with urllib.request.urlopen(f"{base}/health", timeout=2) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False


def metric(url, name):
    """Sum of a counter of vLLM's Prometheus page."""
    with urllib.request.urlopen(f"{url.removesuffix('/v1')}/metrics", timeout=5) as response:
        lines = response.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))


@pytest.fixture
def model(url, tmp_path):
    key_file = tmp_path / "key"
    key_file.write_text(KEY)
    key_file.chmod(0o600)

    def make(name=MODEL, **args):
        return ModelRef(name, "endpoint", args={"url": url, "key_file": str(key_file), "concurrency": 8, **args})

    return make


def test_it_answers_as_the_native_engine_does(worker, checkpoint, model):
    settings = {"dtype": "float32", "kv_tokens": 4096, "max_length": LENGTH, "threads": 1}
    native = create_engine(ModelRef(str(checkpoint), "native", args=settings))
    for name, constraint in CONSTRAINTS.items():
        call = call_with(constraint)
        expected = answers(LocalExchange(native, call), call)
        rows = answers(worker.exchange(call, model=model()), call)
        assert [row.usage.prompt for row in rows] == [row.usage.prompt for row in expected], name
        if name == "json":
            values = [json.loads(row.text) for row in rows if row.text]
            assert all(value["kind"] in {"drama", "comedy"} and value["good"] in {True, False} for value in values)
        else:
            assert [(r.text, r.finish_reason) for r in rows] == [(r.text, r.finish_reason) for r in expected], name
    assert any(row.usage.cached >= 32 for row in rows), "vLLM reports what it had cached"
    replica = worker.client.stats()["models"][0]
    assert replica["capacity"]["max_length"] == LENGTH
    assert replica["counters"]["cached_tokens"] > 0


@pytest.mark.parametrize("structured", ["structured_outputs", "response_format"])
def test_both_ways_to_constrain_answers(worker, model, structured):
    calls = {name: call_with(constraint) for name, constraint in CONSTRAINTS.items() if name != "free text"}
    for name, call in calls.items():
        rows = answers(worker.exchange(call, model=model(structured=structured)), call)
        errors = [row.error for row in rows if row.error and row.error.condition != "LLM_ANSWER_TRUNCATED"]
        assert errors == [], name
    call = Call("c", "good?", constraint=Constraint("choices", ["positive", "negative"]), chat=False)
    with worker.exchange(call, model=model(structured=structured)) as exchange:
        exchange.submit(requests(call, ["a", "b"]))
        assert all(row.text in {"positive", "negative"} for row in drain(exchange, 2).values())


def test_failures_are_named(worker, model, url):
    def ask(reference, call):
        with worker.exchange(call, model=reference) as exchange:
            exchange.submit(requests(call, ["a"]))
            return drain(exchange, 1)[0]

    assert ask(model(), Call("c", "x " * 600)).error.condition == "LLM_PROMPT_TOO_LONG"
    assert ask(model(), call_with(Constraint("regex", "("))).error.condition == "LLM_BAD_CONSTRAINT"
    assert failure_of(lambda: ask(model("other"), Call("c", "p"))).condition == "LLM_UNKNOWN_MODEL"
    failure = failure_of(lambda: ask(ModelRef(MODEL, "endpoint", args={"url": url}), Call("c", "p")))
    assert failure.condition == "LLM_ENDPOINT_KEY"
    assert KEY not in worker.rendezvous.log.read_text()


def test_a_cancelled_stream_is_cancelled_in_the_server(worker, model, url):
    call = Call("c", "tell ", max_tokens=LENGTH - 100)
    with worker.exchange(call, model=model()) as exchange:
        exchange.submit(requests(call, [str(i) for i in range(64)]))
        wait_until(lambda: metric(url, "vllm:num_requests_running") > 0)
    wait_until(lambda: metric(url, "vllm:num_requests_running") + metric(url, "vllm:num_requests_waiting") == 0)
    assert metric(url, "vllm:request_success_total") < 64 + 200
    asked = worker.client.stats()["models"][0]["counters"]["requests"]
    assert asked < 64, "what had not been sent was never sent"
