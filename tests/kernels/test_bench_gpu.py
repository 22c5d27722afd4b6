"""`make bench-gpu` on the CPU: what it builds, checks and computes, in small."""

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
