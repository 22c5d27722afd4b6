"""What a decode step of the native engine costs in Python: processor time of the engine's thread, without the model's.

    python benchmarks/step_cost.py --running 256 --json

The model's forward is replaced by one that returns fixed logits of few tokens. `free`: greedy text, which takes decode
runs; `single`: with a stop string, so that every step is scheduled, planned and chosen anew; `scheduled`: the part of
it that the scheduler takes. Milliseconds a step, the median of the steps.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from checkpoint import write_checkpoint
from emit import emit
from spark_llm.serving.core import Call, ModelRef, Request
from spark_llm.serving.engines.native import NativeEngine

RESULTS = Path(__file__).resolve().parent / "results" / "step_cost.jsonl"
STEPS, TOKENS = 100, 100
CALLS = {
    "free": Call("f", "Say it.\n", max_tokens=400),
    "single": Call("s", "Say it.\n", max_tokens=400, stop=("@@@@",)),
}


class Clock:
    """Sums the processor time of a function's calls."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function, self.seconds = function, 0.0

    def __call__(self, *arguments: Any) -> Any:
        begin = time.thread_time()
        result = self._function(*arguments)
        self.seconds += time.thread_time() - begin
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--running", type=int, default=256)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = str(write_checkpoint(Path(folder) / "model", [f"film {i} was fine" for i in range(1000)]))
        costs: dict[str, float] = {}
        for name, call in CALLS.items():
            costs |= measure(name, call, model, arguments.running)
    emit({"running": arguments.running, **costs}, RESULTS, as_json=arguments.json)


def measure(name: str, call: Call, model: str, running: int) -> dict[str, float]:
    args = {"kv_tokens": running * 600, "max_running": running, "dtype": "bfloat16", "threads": 1}
    engine = NativeEngine(ModelRef(model, "native", "", args))
    engine.submit([Request(i, call, (f"{i} film {i * 7}\n",)) for i in range(running)])
    forward = engine._runner.decoder.forward
    logits = torch.zeros(running, TOKENS)
    logits[:, -1] = 9.0
    while engine.stats()["running"] < running:
        engine.step()
    model_clock = Clock(lambda step, _: logits[: len(step.token_ids)].clone())
    engine._runner.decoder.forward = model_clock  # type: ignore[assignment,method-assign]
    engine._scheduler.schedule = scheduled = Clock(engine._scheduler.schedule)  # type: ignore[method-assign]
    seconds = []
    for _ in range(STEPS):
        begin, before = time.thread_time(), model_clock.seconds
        engine.step()
        seconds.append(time.thread_time() - begin - (model_clock.seconds - before))
    engine._runner.decoder.forward = forward  # type: ignore[method-assign]
    engine.close()
    costs = {f"{name}_ms": round(statistics.median(seconds) * 1e3, 3), f"{name}_most_ms": round(max(seconds) * 1e3, 3)}
    return costs | ({"scheduled_ms": round(scheduled.seconds / STEPS * 1e3, 3)} if name == "single" else {})


if __name__ == "__main__":
    main()
