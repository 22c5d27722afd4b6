"""`make bench-gpu` on the CPU: what it builds, checks and computes, in small."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from spark_llm.serving.model_runner import ModelRunner

CPU = torch.device("cpu")


@pytest.fixture
def bench_gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import bench_gpu

    monkeypatch.setattr(bench_gpu, "timed", lambda run, seconds=0.0: run() is None or 1.0)
    monkeypatch.setattr(bench_gpu, "STEPS", 3)
    yield bench_gpu
    del sys.modules["bench_gpu"]


@pytest.mark.parametrize(
    ("requests", "length", "queries", "page_size", "shared"),
    [(3, 100, 1, 16, 0), (1, 90, 33, 64, 0), (6, 80, 1, 16, 48)],
    ids=["decode", "extend", "shared prefix"],
)
def test_attention_cases_equal_the_formula(bench_gpu, requests, length, queries, page_size, shared):
    case = bench_gpu.Attention(CPU, requests, length, queries, page_size, shared)
    case.check()
    assert case.plain().shape == case.run().shape == (requests * queries, 32, 128)


@pytest.mark.slow
def test_pointwise_kernels_equal_their_references(bench_gpu):
    bench = bench_gpu.Bench(CPU, 0.0, [], copy=1.0)
    bench_gpu.pointwise(bench, tokens=3)
    names = [line["name"].split()[0] for line in bench.lines]
    assert names == ["add_rms_norm", "silu_and_mul", "rotary", "kv_store", "masked_sample", "masked_sample"]
    assert all(line["of_copy"] > 0 for line in bench.lines)


def test_one_file_holds_what_was_measured_and_names_what_was_not(bench_gpu, monkeypatch, tmp_path):
    pytest.importorskip("triton")

    def broken(_):
        message = "no kernel"
        raise RuntimeError(message)

    def slow(bench):
        assert json.loads(bench_gpu.RESULTS.read_text())["skipped"] == {"ceilings": "RuntimeError: no kernel"}
        bench.add("slow", 1.0, tflop_per_s=2.0)
        bench.deadline = 0.0

    monkeypatch.setattr(bench_gpu, "RESULTS", tmp_path / "results" / "gpu.json")
    monkeypatch.setattr(sys, "argv", ["bench_gpu.py"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    for part, run in {"ceilings": broken, "pointwise": slow}.items():
        run.__name__ = part
        monkeypatch.setattr(bench_gpu, part, run)
    bench_gpu.main()
    written = json.loads(bench_gpu.RESULTS.read_text())
    assert written["device"] == "a GPU"
    assert written["figures"] == [{"name": "slow", "ms": 1000.0, "tflop_per_s": 2.0}]
    left_out = dict.fromkeys(("decode", "extend", "shared_prefix", "models"), "no time left")
    assert written["skipped"] == {"ceilings": "RuntimeError: no kernel", **left_out}


@pytest.mark.parametrize("name", ["llama-3-8b", "qwen3-0.6b"])
def test_models_decode_and_prefill(bench_gpu, name):
    small = {"vocab_size": 320, "hidden_size": 64, "intermediate_size": 96, "num_layers": 2, "max_positions": 512}
    config = replace(bench_gpu.MODELS[name][0], **small, num_heads=4, num_kv_heads=2, head_dim=32)
    runner = ModelRunner(*bench_gpu.random_model(config, 60, CPU), max_running=4, max_length=256)
    bench = bench_gpu.Bench(CPU, 0.0, [], copy=1e9, gemm=1e9)
    with torch.inference_mode():
        bench_gpu.model_decode(bench, name, runner, 4, bench_gpu.config_bytes(runner.decoder.weights), context=96)
        bench_gpu.model_prefill(bench, name, runner, bench_gpu.config_bytes(runner.decoder.weights), tokens=256)
    assert [line["name"].split()[1] for line in bench.lines] == ["decode", "prefill"]
