"""What is vLLM's own: its release, random weights, our policies in its scheduler, adapters."""

import json
import subprocess
import sys
import types
from importlib.util import find_spec

import pytest
from spark_llm.serving.core import ModelRef
from spark_llm.serving.engines import create_engine
from spark_llm.serving.worker.package import link_package

from tests.serving.native_checkpoints import write_checkpoint
from tests.serving.test_engines import PYTHON, needs_vllm
from tests.serving.worker_kit import failure_of

TWO_CLIENTS = """
import json, sys
from spark_llm.serving.core import Call, ClientRef, ModelRef, Request
from spark_llm.serving.engines import create_engine

model, runs = sys.argv[1], []
sizes = {"kv_tokens": 4096, "max_length": 512, "max_running": 8, "max_batch_tokens": 512}
for policy in ("dlpm", "fcfs"):
    args = {**sizes, "dtype": "float32", "load_format": "dummy", "policy": policy, "quantum": 200}
    engine = create_engine(ModelRef(model, "vllm", args=args))
    call, order = Call("c", "Is it good?", max_tokens=8), []
    for name, ids in (("heavy", range(60)), ("light", range(60, 72))):
        engine.submit([Request(i, call, (f"film {i}",), client=ClientRef(name)) for i in ids])
    engine.cancel([59, 71])
    while engine.has_work():
        order += [row.request_id for row in engine.step()]
        sharing = engine._scheduler.sharing
        assert len(sharing) == len(engine._scheduler.waiting)
    stats = engine.stats()
    assert not sharing._accounts and not sharing.waiting, "every account is settled"
    runs.append({"rows": len(order), "light": max(order.index(i) for i in range(60, 71)), "steps": stats["steps"],
        "service": sum(sharing.service.values()), "kv_usage": stats["kv_usage"],
        "served": stats["prompt_tokens"] - stats["cached_tokens"] + 2 * stats["output_tokens"]})
    engine.close()
print(json.dumps(runs))
"""


@pytest.fixture(scope="module")
def shape(tmp_path_factory):
    """A model directory without weights."""
    directory = write_checkpoint(tmp_path_factory.mktemp("shape"), hidden_size=128)
    (directory / "model.safetensors").unlink()
    return directory


@needs_vllm
@pytest.mark.slow
def test_policies_order_vllms_queue_and_account_for_every_token(shape, tmp_path):
    environment = {"PYTHONPATH": str(link_package(tmp_path / "python")), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    command = [str(PYTHON), "-c", TWO_CLIENTS, str(shape)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    fair, fcfs = json.loads(done.stdout.splitlines()[-1])
    assert fair["rows"] == fcfs["rows"] == 70
    assert fair["light"] < 35
    assert fcfs["light"] == 69
    assert fair["steps"] == pytest.approx(fcfs["steps"], rel=0.05)
    assert fair["service"] == fair["served"]
    assert fcfs["service"] == fcfs["served"]
    assert fair["kv_usage"] == 0


@pytest.mark.skipif(find_spec("vllm") is not None, reason="this Python has vLLM")
@pytest.mark.parametrize("version", [None, "0.26.0", "0.33.1"])
def test_another_release_or_none_is_refused(shape, monkeypatch, version):
    if version is not None:
        monkeypatch.setitem(sys.modules, "vllm", types.SimpleNamespace(__version__=version))
    failure = failure_of(lambda: create_engine(ModelRef(str(shape), "vllm")))
    assert failure.condition == "LLM_ENGINE_START"
    assert "needs vLLM 0.32" in failure.message
    assert version is None or f"found {version}" in failure.message
    assert "spark.llm.engine.vllm.python" in failure.remedy
