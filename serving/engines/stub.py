"""An engine without a model, for tests of all around one: answers are a pure function of the question."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spark_llm.serving.core import Capacity, Finished, Request, RowError, Usage
from spark_llm.serving.engines.sampler import sample_regex, sample_schema

BYTES_PER_TOKEN = 4
KV_TOKENS, MAX_LENGTH, MAX_RUNNING = 1 << 20, 1 << 16, 256


def prompt_text(request: Request) -> str:
    """The prompt as the stub sees it: system message, and what the user says, no chat template."""
    return (request.call.system or "") + request.text


def canonical(prompt: str) -> str:
    """`prompt` with the keys of its object of fields sorted: answers do not depend on the field order."""
    head, separator, body = prompt.rpartition("\n\n{\n")
    try:
        fields = json.loads("{" + body) if separator else None
    except ValueError:
        fields = None
    return prompt if fields is None else head + json.dumps(fields, sort_keys=True)


def common_prefix(a: str, b: str) -> int:
    """Number of leading characters that `a` and `b` share, by bisection over slices."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[low:middle] == b[low:middle] else (low, middle - 1)
    return low


class StubEngine:
    """Deterministic engine.

    Parameters
    ----------
    args : mapping
        `calls_dir`: folder that gets one line (sha256 of the prompt) per asked request in `<pid>.calls`;
        `fail_marker`: a prompt holding this text gives an error row;
        `crash_marker`: a prompt holding this text ends the process, `crash_times` (1) times per `calls_dir`;
        `flaky_marker`: a prompt holding this text fails for a transient cause, `flaky_times` (1) times;
        `memory_bytes`: memory to fill;
        `delay_ms`: pause per step; `batch`: requests per step (256); `echo`: answer with the prompt itself.
    """

    def __init__(self, args: Mapping[str, Any]) -> None:
        self._args = args
        self._waiting: dict[int, Request] = {}
        self._flaky: dict[str, int] = {}
        self._ballast = b"\1" * self._args.get("memory_bytes", 0)
        self._previous: dict[str, str] = {}
        self._stats = dict.fromkeys(("steps", "prompt_tokens", "cached_tokens", "output_tokens"), 0)

    def submit(self, requests: Sequence[Request]) -> None:
        self._waiting.update((request.request_id, request) for request in requests)

    def has_work(self) -> bool:
        return bool(self._waiting)

    def cancel(self, request_ids: Sequence[int]) -> None:
        for request_id in request_ids:
            self._waiting.pop(request_id, None)

    def capacity(self) -> Capacity:
        return Capacity(KV_TOKENS, MAX_LENGTH, MAX_RUNNING, "stub")

    def stats(self) -> Mapping[str, float]:
        return {**self._stats, "running": 0, "waiting": len(self._waiting)}

    def running(self) -> Mapping[str, int]:
        batch = list(self._waiting.values())[: self._args.get("batch", 256)]
        return Counter(request.client.name for request in batch)

    def close(self) -> None:
        self._waiting.clear()

    def step(self) -> list[Finished]:
        if not self._waiting:
            return []
        time.sleep(self._args.get("delay_ms", 0) / 1000)
        batch = list(self._waiting.values())[: self._args.get("batch", 256)]
        prompts = [prompt_text(request) for request in batch]
        self._crash_if_marked(prompts)
        self._record(prompts)
        self._stats["steps"] += 1
        self.cancel([request.request_id for request in batch])
        return [self._answer(request, prompt) for request, prompt in zip(batch, prompts, strict=True)]

    def _answer(self, request: Request, prompt: str) -> Finished:
        if (marker := self._args.get("fail_marker")) and marker in prompt:
            return _failed(request, "LLM_ROW_FAILED", "the stub was told to fail this prompt")
        if (marker := self._args.get("flaky_marker")) and marker in prompt:
            self._flaky[prompt] = self._flaky.get(prompt, 0) + 1
            if self._flaky[prompt] <= self._args.get("flaky_times", 1):
                return _failed(request, "LLM_ROW_INTERRUPTED", "the stub was told to fail this prompt for now")
        try:
            text = prompt if self._args.get("echo") else _sample(request, prompt)
        except (ValueError, re.error) as problem:
            return _failed(
                request, "LLM_BAD_CONSTRAINT", f"the {request.call.constraint.kind} is not usable: {problem}"
            )
        limit = request.call.max_tokens * BYTES_PER_TOKEN
        cut = len(text) > limit and not self._args.get("echo") and request.call.constraint.kind != "choices"
        text = text[:limit] if cut else text
        return Finished(
            request.request_id, text, "length" if cut else "stop", self._usage(request.domain, prompt, text)
        )

    def _usage(self, domain: str, prompt: str, text: str) -> Usage:
        cached = common_prefix(prompt, self._previous.get(domain, "")) // BYTES_PER_TOKEN
        self._previous[domain] = prompt
        usage = Usage(_tokens(prompt), cached, _tokens(text))
        for name, value in zip(("prompt_tokens", "cached_tokens", "output_tokens"), _fields(usage), strict=True):
            self._stats[name] += value
        return usage

    def _record(self, prompts: Sequence[str]) -> None:
        if folder := self._args.get("calls_dir"):
            with (Path(folder) / f"{os.getpid()}.calls").open("a") as log:
                log.writelines(hashlib.sha256(prompt.encode()).hexdigest() + "\n" for prompt in prompts)

    def _crash_if_marked(self, prompts: Sequence[str]) -> None:
        marker = self._args.get("crash_marker")
        if not marker or not any(marker in prompt for prompt in prompts):
            return
        log = Path(self._args["calls_dir"]) / "crashes"
        if not log.exists() or log.stat().st_size < self._args.get("crash_times", 1):
            with log.open("a") as crashes:
                crashes.write("x")
            os._exit(1)


def _fields(usage: Usage) -> tuple[int, int, int]:
    return usage.prompt, usage.cached, usage.output


def _tokens(text: str) -> int:
    return -(-len(text.encode()) // BYTES_PER_TOKEN)


def _failed(request: Request, condition: str, message: str) -> Finished:
    return Finished(request.request_id, None, "error", error=RowError(condition, message))


def _sample(request: Request, prompt: str) -> str:
    """An answer that satisfies the call's constraint, drawn by the hash of all that may change it."""
    constraint = request.call.constraint
    asked = [canonical(prompt), constraint.kind, constraint.value, request.seed]
    rng = random.Random(hashlib.sha256(json.dumps(asked).encode()).digest())
    if constraint.kind == "choices":
        return rng.choice(list(constraint.value))
    if constraint.kind == "regex":
        return sample_regex(constraint.value, rng)
    if constraint.kind == "json_schema":
        schema = json.loads(constraint.value) if isinstance(constraint.value, str) else constraint.value
        return json.dumps(sample_schema(schema, rng), ensure_ascii=False)
    return f"stub:{rng.getrandbits(48):012x}"
