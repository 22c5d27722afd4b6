"""What a decode step of the native engine costs in Python: processor time of the engine's thread, without the model's.

    python benchmarks/step_cost.py --running 256 --json

The model's forward is replaced by one that returns fixed logits; the choice over the vocabulary, one call of a kernel,
is not counted either but shown apart (`choice_ms`). `free`: greedy text; `stop`: with a stop string; `sampled`,
`nucleus`: at a temperature; `regex`, `schema`: under xgrammar's masks, whose own share is shown (`grammar_ms`, by the
clock, as threads share it), on one thread; `schema2`: on two.
`forced`: objects of four fields, whose names are forced text, so that rows leave the decode run and come back.
`churn`: answers of 17 to 48 tokens, eight of which end in a step while the next eight rows begin. `single`: without
decode runs, all rows scheduled, planned and chosen anew. Tokenizing prompts is shown apart (`prompt_ms`), too.
Milliseconds a step, the mean of the steps (`_most_ms`: the longest).
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from checkpoint import write_checkpoint
from emit import emit
from spark_llm.kernels.masked_sample import masked_sample
from spark_llm.serving import sampling
from spark_llm.serving.core import Call, Constraint, ModelRef, Request
from spark_llm.serving.decode_run import DecodeRun
from spark_llm.serving.engines import THREADS_THAT_WAIT
from spark_llm.serving.engines.native import NativeEngine
from spark_llm.serving.grammar import GrammarBatch
from spark_llm.serving.models.decoder import StepInput

RESULTS = Path(__file__).resolve().parent / "results" / "step_cost.jsonl"
STEPS = 100
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
FIELDS = {
    "type": "object",
    "properties": {
        name: {"type": "string", "pattern": "[a-z ]{20,40}"} for name in ("first", "second", "third", "last")
    },
    "required": ["first", "second", "third", "last"],
    "additionalProperties": False,
}
WITH: dict[str, dict[str, Any]] = {
    "free": {},
    "stop": {"stop": ("@@@@",)},
    "sampled": {"temperature": 0.8},
    "nucleus": {"temperature": 0.8, "top_p": 0.9},
    "regex": {"constraint": Constraint("regex", "[a-z ]{390,400}")},
    "schema": {"constraint": Constraint("json_schema", json.dumps(SCHEMA))},
    "schema2": {"constraint": Constraint("json_schema", json.dumps(SCHEMA))},
    "forced": {"constraint": Constraint("json_schema", json.dumps(FIELDS))},
    "churn": {},
    "single": {},
}


class Clock:
    """Sums the time of a function's calls, by default the thread's processor time."""

    def __init__(self, function: Callable[..., Any], now: Callable[[], float] = time.thread_time) -> None:
        self._function, self._now, self.seconds = function, now, 0.0

    def __call__(self, *arguments: Any) -> Any:
        begin = self._now()
        result = self._function(*arguments)
        self.seconds += self._now() - begin
        return result

    @property
    def method(self) -> Callable[..., Any]:
        """To stand in a class."""
        return lambda *arguments: self(*arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--running", type=int, default=256)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if not THREADS_THAT_WAIT.keys() <= os.environ.keys():  # torch has loaded OpenMP without them
        os.execve(sys.executable, [sys.executable, *sys.argv], {**THREADS_THAT_WAIT, **os.environ})
    with tempfile.TemporaryDirectory() as folder:
        model = str(write_checkpoint(Path(folder) / "model", [f"film {i} was fine" for i in range(1000)]))
        costs: dict[str, float] = {}
        for name, more in WITH.items():
            costs |= measure(name, Call(name, "Say it.\n", max_tokens=400, **more), model, arguments.running)
    emit({"running": arguments.running, **costs}, RESULTS, as_json=arguments.json)


def measure(name: str, call: Call, model: str, running: int) -> dict[str, float]:
    args = {"kv_tokens": running * 600, "max_running": running, "dtype": "bfloat16", "threads": 1 + (name == "schema2")}
    engine = NativeEngine(ModelRef(model, "native", "", args))
    gc.freeze()  # as the engine's process does
    many = running * (STEPS // 16 + 2) if name == "churn" else running
    lengths = [17 + i * 11 % 32 if name == "churn" else 400 for i in range(many)]
    calls = {length: replace(call, call_id=f"{name} {length}", max_tokens=length) for length in set(lengths)}
    engine.submit([Request(i, calls[n], (f"{i} film {i * 7}\n",), seed=i) for i, n in enumerate(lengths)])
    sizes = running + 256, engine._runner.decoder.config.vocab_size
    text = engine._tokenizer.encode(" film").tolist() if call.constraint.kind != "none" else range(sizes[1])
    logits = torch.full(sizes, -50.0)
    logits[:, text] = torch.randn((sizes[0], len(text)), generator=torch.Generator().manual_seed(1))
    logits[:, 0] = -100.0  # ends an answer
    with ExitStack() as stack:
        if name == "single":
            stack.enter_context(mock.patch.object(DecodeRun, "ready", return_value=False))
        while engine.stats()["running"] < running:
            engine.step()
        model_clock = Clock(lambda step, _: logits[: rows_of(step)].clone())
        stack.enter_context(mock.patch.object(engine._runner.decoder, "forward", model_clock))
        choices = [Clock(masked_sample), Clock(torch.Tensor.argmax)]
        stack.enter_context(mock.patch.object(sampling, "masked_sample", choices[0]))
        stack.enter_context(mock.patch.object(torch.Tensor, "argmax", choices[1].method))
        prompts = [Clock(engine._composer.prepare), Clock(engine._composer.compose)]
        stack.enter_context(mock.patch.object(engine._composer, "prepare", prompts[0]))
        stack.enter_context(mock.patch.object(engine._composer, "compose", prompts[1]))
        grammar = Clock(GrammarBatch.advance, time.perf_counter)
        stack.enter_context(mock.patch.object(GrammarBatch, "advance", grammar.method))
        for _ in range(3):
            engine.step()
        assert (engine._run is None) == (name == "single"), name
        apart = (model_clock, *choices, *prompts)
        for clock in (grammar, *apart):
            clock.seconds = 0.0
        seconds = []
        ended = 0
        for _ in range(STEPS):
            begin, before = time.thread_time(), sum(clock.seconds for clock in apart)
            ended += len(engine.step())
            seconds.append(time.thread_time() - begin - (sum(clock.seconds for clock in apart) - before))
        assert (ended > 6 * STEPS) == (name == "churn"), (name, ended)
    engine.close()
    costs = {f"{name}_ms": statistics.mean(seconds), f"{name}_most_ms": max(seconds)}
    shares = {"choice": choices, "grammar": [grammar], "prompt": prompts}
    for share, clocks in shares.items():
        if spent := sum(clock.seconds for clock in clocks):
            costs[f"{name}_{share}_ms"] = spent / STEPS
    return {key: round(value * 1e3, 3) for key, value in costs.items()}


def rows_of(step: StepInput) -> int:
    return len(step.token_ids) if isinstance(step.logit_rows, slice) else len(step.logit_rows)


if __name__ == "__main__":
    main()
