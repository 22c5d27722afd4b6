"""The native engine's kernels and models on one NVIDIA GPU, against what the machine itself measures.

    python benchmarks/bench_gpu.py            (make bench-gpu)

Ceilings first (copy bandwidth, GEMM rate on random bf16 data), then each kernel and two models with random weights of
the shapes of Llama-3-8B and Qwen3-0.6B. Writes one file, benchmarks/results/gpu.json, and prints a table. Every kernel
is checked against its reference before it is timed. Ends within about 8 minutes; what its time does not allow is left
out and named. The file is written anew after every part, so that a run that is ended leaves what it has measured.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from spark_llm.kernels import kv_store, masked_sample, rms_norm, rotary, silu_and_mul
from spark_llm.kernels.cascade import Query
from spark_llm.kernels.paged_attention import PagedBatch, paged_attention, paged_attention_reference
from spark_llm.serving.host_copy import HostCopy
from spark_llm.serving.model_runner import ModelRunner
from spark_llm.serving.models.config import DecoderConfig
from spark_llm.serving.models.decoder import Decoder, KVCache, StepInput
from spark_llm.serving.models.weights import DecoderWeights, FeedForward, hugging_face_decoder
from torch import Tensor

RESULTS = Path(__file__).resolve().parent / "results" / "gpu.json"
BF16 = torch.bfloat16
STEPS = 32
"""Decode steps that are timed."""
LLAMA_8B = DecoderConfig(128256, 4096, 14336, 32, 32, 8, 128, 1e-5, 8192, {"rope_type": "default", "rope_theta": 5e5})
QWEN_600M = DecoderConfig(
    151936,
    1024,
    3072,
    28,
    16,
    8,
    128,
    1e-6,
    8192,
    {"rope_type": "default", "rope_theta": 1e6},
    qk_norm=True,
    tied_embeddings=True,
)
MODELS = {"llama-3-8b": (LLAMA_8B, 64), "qwen3-0.6b": (QWEN_600M, 256)}
"""Configuration and decode batch."""


@dataclass
class Bench:
    device: torch.device
    deadline: float
    lines: list[dict[str, Any]]
    copy: float = 0.0  # bytes a second, read and written
    gemm: float = 0.0  # floating-point operations a second

    def add(self, name: str, seconds: float, **figures: float) -> None:
        line = {"name": name, "ms": round(seconds * 1e3, 4), **{k: round(v, 4) for k, v in figures.items()}}
        self.lines.append(line)
        print("  ".join(f"{k}={v}" for k, v in line.items()), flush=True)

    def moved(self, name: str, run: Callable[[], Any], size: int, **figures: float) -> None:
        seconds = timed(run)
        self.add(name, seconds, gb_per_s=size / seconds / 1e9, of_copy=size / seconds / self.copy, **figures)


def main() -> None:
    arguments = parse_arguments()
    if not torch.cuda.is_available():
        raise SystemExit("bench_gpu needs a CUDA device that torch sees; none is at hand.")
    device = torch.device("cuda")
    bench = Bench(device, time.monotonic() + arguments.minutes * 60, [])
    skipped: dict[str, str] = {}
    versions = {"torch": torch.__version__, "triton": version("triton"), "python": platform.python_version()}
    machine = {"device": torch.cuda.get_device_name(), **versions, "when": time.strftime("%Y-%m-%d %H:%M")}
    RESULTS.parent.mkdir(exist_ok=True)
    for part in (ceilings, pointwise, decode, extend, shared_prefix, models):
        if time.monotonic() > bench.deadline:
            skipped[part.__name__] = "no time left"
        else:
            try:
                with torch.inference_mode():
                    part(bench)
            except Exception as failure:
                skipped[part.__name__] = f"{type(failure).__name__}: {failure}"[:500]
                print(part.__name__, "FAILED", skipped[part.__name__], flush=True)
            torch.cuda.empty_cache()
        RESULTS.write_text(json.dumps({**machine, "skipped": skipped, "figures": bench.lines}, indent=1) + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=6.0, help="no part begins after that many")
    return parser.parse_args()


def timed(run: Callable[[], Any], seconds: float = 0.4) -> float:
    """Median seconds of a call by CUDA events, after warming up; between calls 256 MB are written over the L2 cache."""
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    begin = time.perf_counter()
    run()
    torch.cuda.synchronize()
    count = int(min(50, max(5, seconds / max(1e-6, time.perf_counter() - begin))))
    flush = torch.empty(1 << 28, dtype=torch.int8, device="cuda")
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(count)]
    for start, end in events:
        flush.zero_()
        start.record()
        run()
        end.record()
    torch.cuda.synchronize()
    return float(np.median([start.elapsed_time(end) for start, end in events])) / 1e3


def ceilings(bench: Bench) -> None:
    source = torch.randn(1 << 29, device=bench.device, dtype=BF16)
    target = torch.empty_like(source)
    seconds = timed(lambda: target.copy_(source))
    bench.copy = 2 * source.nbytes / seconds
    bench.add("copy", seconds, gb_per_s=bench.copy / 1e9)
    for m, n, k in ((8192, 8192, 8192), (8192, 28672, 4096)):
        a, b = torch.randn(m, k, device=bench.device, dtype=BF16), torch.randn(k, n, device=bench.device, dtype=BF16)
        out = torch.empty(m, n, device=bench.device, dtype=BF16)
        seconds = timed(partial(torch.mm, a, b, out=out))
        bench.gemm = max(bench.gemm, 2 * m * n * k / seconds)
        bench.add(f"gemm {m}x{n}x{k}", seconds, tflop_per_s=2 * m * n * k / seconds / 1e12)


def pointwise(bench: Bench, tokens: int = 16384) -> None:
    hidden = 4096
    x, residual = (torch.randn(tokens, hidden, device=bench.device, dtype=BF16) for _ in range(2))
    weight = torch.randn(hidden, device=bench.device, dtype=BF16)
    check(rms_norm.add_rms_norm(x, residual, weight, 1e-5), rms_norm.add_rms_norm_reference(x, residual, weight, 1e-5))
    bench.moved("add_rms_norm", lambda: rms_norm.add_rms_norm(x, residual, weight, 1e-5), 4 * x.nbytes)
    gate_up = torch.randn(tokens, 2 * 14336, device=bench.device, dtype=BF16)
    check(silu_and_mul.silu_and_mul(gate_up), silu_and_mul.silu_and_mul_reference(gate_up))
    bench.moved("silu_and_mul", lambda: silu_and_mul.silu_and_mul(gate_up), gate_up.nbytes * 3 // 2)
    heads = torch.randn(tokens, 48, 128, device=bench.device, dtype=BF16)
    cos, sin = (torch.randn(tokens, 1, 64, device=bench.device, dtype=BF16) for _ in range(2))
    check(rotary.rotate(heads[:, :32], cos, sin), rotary.rotate_reference(heads[:, :32], cos, sin))
    bench.moved("rotary", lambda: rotary.rotate(heads[:, :32], cos, sin), 2 * heads[:, :32].numel() * 2)
    k, v = heads[:, 32:40], heads[:, 40:]
    k_cache, v_cache = (torch.zeros(2048, 16, 8, 128, device=bench.device, dtype=BF16) for _ in range(2))
    slots = torch.randperm(2048 * 16, device=bench.device)[:tokens]
    kv_store.kv_store(k, v, k_cache, v_cache, slots)
    check(k_cache.view(-1, 8, 128)[slots], k)
    bench.moved("kv_store", lambda: kv_store.kv_store(k, v, k_cache, v_cache, slots), 4 * k.numel() * 2)
    logits = torch.randn(256, 128256, device=bench.device)
    masks = torch.randint(-(2**31), 2**31 - 1, (4, 4008), dtype=torch.int32, device=bench.device)
    mask_of = torch.arange(256, device=bench.device) % 5 - 1
    keys = torch.from_numpy(masked_sample.noise_keys(np.arange(256, dtype=np.uint64), np.arange(256))).to(bench.device)
    for name, warmth in (("masked_sample greedy", 0.0), ("masked_sample drawn", 1.0)):
        arguments = (masks, mask_of, torch.full((256,), warmth, device=bench.device), None, keys)
        got = masked_sample.masked_sample(logits.clone(), *arguments)
        wanted = masked_sample.masked_sample_reference(logits.clone(), *arguments)
        check(
            (got == wanted).float().mean().round(decimals=1), torch.ones((), device=bench.device)
        )  # but for near ties
        bench.moved(name, lambda a=arguments: masked_sample.masked_sample(logits, *a), logits.nbytes)  # type: ignore[misc]


def decode(bench: Bench) -> None:
    """One new token of each request over its own keys; caches beyond the L2."""
    for requests, length, page_size in ((64, 4096, 16), (64, 4096, 64), (256, 1024, 16), (8, 32768, 16)):
        case = Attention(bench.device, requests, length, 1, page_size)
        case.check()
        bench.moved(f"decode {requests}x{length} pages of {page_size}", case.run, case.key_bytes(requests * length))


def extend(bench: Bench) -> None:
    """New tokens behind a cached prefix; causal work counted half."""
    for queries, length, page_size in ((2048, 4096, 64), (2048, 8192, 64), (4096, 16384, 64), (8192, 8192, 16)):
        case = Attention(bench.device, 1, length, queries, page_size)
        if queries * length <= 1 << 23:
            case.check()
        pairs = queries * (length - queries) + queries * (queries + 1) / 2
        seconds = timed(case.run)
        work = 4 * pairs * 32 * 128
        name = f"extend {queries} of {length} pages of {page_size}"
        bench.add(name, seconds, tflop_per_s=work / seconds / 1e12, of_gemm=work / seconds / bench.gemm)


def shared_prefix(bench: Bench) -> None:
    """Many requests behind one prefix, with it read once and with it read by each."""
    for prefix, own, requests in ((4096, 128, 256), (1024, 128, 256), (512, 64, 64)):
        case = Attention(bench.device, requests, prefix + own, 1, 16, shared=prefix)
        case.check()
        shared, plain = timed(case.run), timed(case.plain)
        name = f"shared prefix {prefix}+{own} x{requests}"
        bench.add(name, shared, plain_ms=plain * 1e3, speedup=plain / shared)


class Attention:
    """Requests of like size with 32 query and 8 KV heads of 128, on random pages."""

    def __init__(
        self, device: torch.device, requests: int, length: int, queries: int, page_size: int, shared: int = 0
    ) -> None:
        pages = -(-length // page_size)
        common = shared // page_size
        order = np.random.default_rng(0).permutation(requests * pages).astype(np.int32)
        tables = order.reshape(requests, pages)
        tables[:, :common] = np.sort(order[:common])
        tables = tables[np.argsort(tables[:, common])]
        self.k, self.v = (torch.randn(requests * pages, page_size, 8, 128, device=device, dtype=BF16) for _ in range(2))
        self.q = torch.randn(requests * queries, 32, 128, device=device, dtype=BF16)
        asked = [Query(r * queries, length - queries, length, table) for r, table in enumerate(tables)]
        alone = [query._replace(table=np.roll(query.table, 1)) for query in asked] if shared else asked
        options: dict[str, Any] = {"dtype": BF16, "device": device, "heads": (32, 8, 128)}
        self.batch = PagedBatch.build(asked, page_size, **options)
        self.apart = PagedBatch.build(alone, page_size, **options)
        self.few = min(requests, 4) * queries

    def run(self) -> Tensor:
        return paged_attention(self.q, self.k, self.v, self.batch, 128**-0.5)

    def plain(self) -> Tensor:
        """The same number of keys without a page in common at the same place."""
        return paged_attention(self.q, self.k, self.v, self.apart, 128**-0.5)

    def check(self) -> None:
        """Compare the first requests with the formula."""
        batch = self.batch
        few = PagedBatch(batch.query_starts[:5], batch.context_lens[:4], batch.page_tables[:4], ())
        check(self.run()[: self.few], paged_attention_reference(self.q[: self.few], self.k, self.v, few, 128**-0.5))

    def key_bytes(self, keys: int) -> int:
        return keys * 2 * 8 * 128 * 2


def check(got: Tensor | tuple[Tensor, ...], wanted: Tensor | tuple[Tensor, ...]) -> None:
    torch.testing.assert_close(got, wanted, atol=2e-2, rtol=2e-2)


def models(bench: Bench) -> None:
    for name, (config, batch) in MODELS.items():
        runner = ModelRunner(*random_model(config, batch * 80 + 640, bench.device), max_running=batch, max_length=2048)
        weights = config_bytes(runner.decoder.weights)
        model_decode(bench, name, runner, batch, weights)
        model_prefill(bench, name, runner, weights)
        del runner
        torch.cuda.empty_cache()


def model_decode(bench: Bench, name: str, runner: ModelRunner, batch: int, weights: int, context: int = 1024) -> None:
    """Steps of a captured batch; the bound is the time to read weights and keys once."""
    pages = context // runner.page_size + 4
    tables = list(np.arange(batch * pages, dtype=np.int32).reshape(batch, pages))
    tokens = torch.arange(batch, device=bench.device) % 1000
    made = runner.decode_batch(tables, np.full(batch, context))

    def chosen(last: Tensor) -> HostCopy:
        return HostCopy(runner.decode(last, made).argmax(-1))

    for _ in range(3):
        chosen(tokens).read()
        made.advance({})
    queued = chosen(tokens)
    begin = time.perf_counter()
    for _ in range(STEPS):  # read late, as `DecodeRun` does
        made.advance({})
        last, queued = queued, chosen(queued.tensor)
        last.read()
    queued.read()
    seconds = (time.perf_counter() - begin) / STEPS
    keys = batch * (context + 20) * runner.decoder.config.kv_bytes_per_token(2)
    bound = (weights + keys) / bench.copy
    bench.add(
        f"{name} decode x{batch} at {context}", seconds, tokens_per_s=batch / seconds, of_bandwidth=bound / seconds
    )


def model_prefill(bench: Bench, name: str, runner: ModelRunner, weights: int, tokens: int = 8192) -> None:
    config, size, count = runner.decoder.config, runner.page_size, 4
    each = tokens // count
    pages = each // size
    tables = [np.arange(i * pages, (i + 1) * pages, dtype=np.int32) for i in range(count)]
    queries = [Query(i * each, 0, each, table) for i, table in enumerate(tables)]
    last = [Query(i, each - 1, each, table) for i, table in enumerate(tables)]
    step = StepInput(
        token_ids=torch.arange(tokens, device=bench.device) % 1000,
        positions=torch.arange(each, device=bench.device).repeat(count),
        slots=torch.arange(tokens, device=bench.device),
        copies=None,
        batches=runner._batches(queries),
        logit_rows=torch.arange(count, device=bench.device) * each + each - 1,
        logit_batches=runner._batches(last),
    )
    seconds = timed(lambda: runner.decoder.forward(step, runner.cache), seconds=2.0)
    head = config.vocab_size * config.hidden_size * 2
    attention = 2 * config.num_layers * count * each**2 * config.num_heads * config.head_dim
    work = (weights - head) * tokens + count * head + attention
    bench.add(
        f"{name} prefill {count}x{each}",
        seconds,
        tokens_per_s=tokens / seconds,
        tflop_per_s=work / seconds / 1e12,
        of_gemm=work / seconds / bench.gemm,
    )


def random_model(config: DecoderConfig, pages: int, device: torch.device) -> tuple[Decoder, KVCache]:
    """A decoder with random weights, and a cache of `pages` pages of 16 tokens and a spare one."""

    def source(name: str, *shape: int) -> Tensor:
        if name.endswith("norm.weight"):
            return torch.ones(shape, device=device, dtype=BF16)
        return torch.randn(shape, device=device, dtype=BF16) * shape[-1] ** -0.5

    decoder = Decoder(config, hugging_face_decoder(source, config), config.max_positions)
    return decoder, KVCache.zeros(config, pages + 1, 16, BF16, device)


def config_bytes(weights: DecoderWeights) -> int:
    """Bytes of the matrices that a token is multiplied with."""
    total = weights.head.weight.nbytes
    for layer in weights.layers:
        assert isinstance(layer.feed_forward, FeedForward)
        parts = (layer.qkv, layer.output, layer.feed_forward.gate_up, layer.feed_forward.down)
        total += sum(part.weight.nbytes for part in parts)
    return total


if __name__ == "__main__":
    main()
