"""One engine in its own process for benchmarks/engine.py: reads jobs as JSON lines, answers each with a JSON line.

Runs under the engine's own Python. First line: a ModelRef; further ones: {"call": Call, "requests": FILE}, where FILE
holds a JSON list of segments. The prefix cache is cold in every job whose instruction is new.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from spark_llm.serving.core import Call, ModelRef, Request
from spark_llm.serving.engines import create_engine

COUNTERS = ("steps", "prompt_tokens", "cached_tokens", "output_tokens", "prefill_tokens")


def main() -> None:
    out = sys.stdout
    sys.stdout = sys.stderr  # what libraries print is not an answer
    model, begin = ModelRef(**json.loads(input())), time.perf_counter()
    engine = create_engine(model)
    loaded = time.perf_counter() - begin
    run(engine, Call("warm", "Warm up.", max_tokens=4), [[f"{i} " * 40] for i in range(64)])
    print(json.dumps({"load_s": loaded}), file=out, flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        if "peak" in job:
            answer: Any = {"ideal": ideal_seconds(**job["peak"]), "linears": linear_seconds(engine, **job["peak"])}
        else:
            answer = run(engine, Call.from_dict(job["call"]), json.loads(Path(job["requests"]).read_text()))
        print(json.dumps(answer), file=out, flush=True)
    engine.close()


def run(engine: Any, call: Call, segments: list[list[str]]) -> dict[str, Any]:
    """Answer all requests; tokenizing is part of the time, on both sides."""
    pieces = engine._composer._tokenizer._pieces
    pieces.clear()
    before = engine.stats()
    requests = [Request(i, call, tuple(pieces)) for i, pieces in enumerate(segments)]
    begin, cpu = time.perf_counter(), time.process_time()
    finished = []
    engine.submit(requests)
    while engine.has_work():
        finished += engine.step()
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    after = engine.stats()
    prompts = [engine._composer.compose(request).astype(">i4").tobytes() for request in requests]
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        **{name: after.get(name, 0) - before.get(name, 0) for name in COUNTERS},
        "distinct_prefix_tokens": trie_tokens(prompts),
        "canonical_tokens": canonical_tokens(engine._composer, requests),
        "answers": [f.text for f in sorted(finished, key=lambda f: f.request_id)],
        "errors": sum(f.error is not None for f in finished),
    }


def canonical_tokens(composer: Any, requests: list[Request]) -> int:
    """Tokens of the prompts if each were tokenized in one piece, the chat template's text included."""
    call = requests[0].call
    before, after = composer.template.split(call.system)
    texts = [before + call.instruction + "".join(request.segments) + after for request in requests]
    return sum(map(len, composer._tokenizer.encode_pieces(texts, markup=True)))


def trie_tokens(prompts: list[bytes]) -> int:
    """Nodes of the prompts' token trie; tokens are four bytes each."""
    total, last = 0, b""
    for prompt in sorted(prompts):
        common = 0
        while common < min(len(prompt), len(last)) and prompt[common : common + 4] == last[common : common + 4]:
            common += 4
        total, last = total + (len(prompt) - common) // 4, prompt
    return total


def ideal_seconds(shapes: list[list[int]], rows: int, repeats: int) -> float:
    """Seconds of the best `torch.mm(out=)` over each [out, in] weight at `rows` rows, per row."""
    import torch

    total = 0.0
    for out, width in shapes:
        x, w = (torch.randn(n, width).to(torch.bfloat16) for n in (rows, out))
        y = torch.empty(rows, out, dtype=torch.bfloat16)
        times = []
        for _ in range(repeats):
            begin = time.perf_counter()
            torch.mm(x, w.T, out=y)
            times.append(time.perf_counter() - begin)
        total += min(times) / rows
    return total


def linear_seconds(engine: Any, shapes: list[list[int]], rows: int, repeats: int) -> float:
    """Seconds of the engine's own products over those weights, layer by layer, per row; the fastest pass."""
    import torch

    inputs = {width: torch.randn(rows, width).to(torch.bfloat16) for _, width in shapes}
    layers = engine._runner.decoder.weights.layers
    linears = [
        linear
        for layer in layers
        for linear in (layer.qkv, layer.output, layer.feed_forward.gate_up, layer.feed_forward.down)
    ]
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        for linear, (_, width) in zip(linears, shapes, strict=True):
            linear(inputs[width])
        times.append(time.perf_counter() - begin)
    return min(times) / rows


if __name__ == "__main__":
    main()
