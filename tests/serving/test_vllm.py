"""What is vLLM's own: its release, random weights, our policies in its scheduler, adapters."""

import json
import subprocess
import sys
import types
from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import save_file
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

ADAPTERS = """
import json, sys
from spark_llm.serving.core import Call, ModelRef, Request
from spark_llm.serving.engines import create_engine

model, *adapters = sys.argv[1:]
sizes = {"kv_tokens": 4096, "max_length": 512, "max_running": 8, "dtype": "float32"}
engine = create_engine(ModelRef(model, "vllm", args={**sizes, "enable_lora": True, "max_loras": 2, "max_lora_rank": 8}))
call, rows = Call("c", "Is it good? " * 8, max_tokens=12), {}

def ask(first, names):
    engine.submit([Request(first + i, call, ("film",), adapter=name) for i, name in enumerate(names)])
    while engine.has_work():
        rows.update((row.request_id, row) for row in engine.step())

ask(0, [""])  # by itself: vLLM on the CPU computes rows without an adapter by another row's
ask(1, adapters)
ask(10, [""])
ask(11, adapters)
print(json.dumps([[rows[i].text, rows[i].usage.cached, rows[i].error and rows[i].error.message] for i in sorted(rows)]))
engine.close()
"""


@pytest.fixture(scope="module")
def shape(tmp_path_factory):
    """A model directory without weights."""
    directory = write_checkpoint(tmp_path_factory.mktemp("shape"), hidden_size=128)
    (directory / "model.safetensors").unlink()
    return directory


def in_vllm(folder, script, *arguments):
    """What a script prints last, as JSON, in the Python that has vLLM."""
    environment = {"PYTHONPATH": str(link_package(folder / "python")), "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    command = [str(PYTHON), "-c", script, *map(str, arguments)]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def write_adapter(folder, seed):
    """A random LoRA adapter for the query projections of a checkpoint of three layers, 128 wide."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(seed)
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 64, "target_modules": ["q_proj"], "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    names = [f"base_model.model.model.layers.{n}.self_attn.q_proj.lora_{m}.weight" for n in range(3) for m in "AB"]
    shapes = {"A": (8, 128), "B": (128, 8)}
    weights = {name: torch.randn(shapes[name.split(".lora_")[1][0]], generator=generator) for name in names}
    save_file(weights, folder / "adapter_model.safetensors")
    return folder


@needs_vllm
@pytest.mark.slow
def test_policies_order_vllms_queue_and_account_for_every_token(shape, tmp_path):
    fair, fcfs = in_vllm(tmp_path, TWO_CLIENTS, shape)
    assert fair["rows"] == fcfs["rows"] == 70
    assert fair["light"] < 35
    assert fcfs["light"] == 69
    assert fair["steps"] == pytest.approx(fcfs["steps"], rel=0.05)
    assert fair["service"] == fair["served"]
    assert fcfs["service"] == fcfs["served"]
    assert fair["kv_usage"] == 0


@needs_vllm
@pytest.mark.slow
def test_requests_bring_their_adapters_and_one_that_does_not_load_costs_its_rows(tmp_path):
    model = write_checkpoint(tmp_path / "model", hidden_size=128)
    one, two = (write_adapter(tmp_path / name, seed) for seed, name in enumerate(("one", "two")))
    rows = in_vllm(tmp_path, ADAPTERS, model, one, two, tmp_path / "none")
    first, again = rows[:4], rows[4:]
    (base, *_), (of_one, *_), (of_two, *_), (absent, _, message) = first
    assert len({base, of_one, of_two}) == 3
    assert absent is None
    assert "the adapter does not load" in message
    assert [row[1] for row in first[:3]] == [0, 0, 0], "no prefix is shared across adapters"
    assert [row[0] for row in again] == [row[0] for row in first]
    assert all(row[1] > 0 for row in again[:3])


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
