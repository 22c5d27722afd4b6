"""A heavy client queued before a light one at an engine in this process, under one policy: one JSON line.

Runs with the engine's own Python. Input: a JSON object {"model": ModelRef, "heavy": rows, "light": rows, "tokens": n,
"cost": whether to time the policy instead}.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from spark_llm.serving.core import Call, ClientRef, ModelRef, Request
from spark_llm.serving.engines import create_engine
from spark_llm.serving.scheduler.policy import Policy
from spark_llm.serving.scheduler.simulator import GapMeter

MANY = 1000
"""Waiting requests at which the policy is timed."""
WARM_STEPS, COST_STEPS = 50, 150


def policy_of(engine: Any) -> Policy:
    scheduler = engine._scheduler
    return scheduler.sharing if hasattr(scheduler, "sharing") else scheduler.policy


def rows_of(client: str, rows: int, first: int, tokens: int) -> list[Request]:
    """Prompts without a common prefix, and answers of a fixed length as far as the model allows."""
    call = Call("c", max_tokens=tokens, chat=False)
    return [
        Request(
            first + i, call, (f"{(first + i) * 7919} {client}: film {i}, {i % 5} stars.",), client=ClientRef(client)
        )
        for i in range(rows)
    ]


class Stopwatch:
    """Seconds spent in the policy by its driver; the clock's own time counts in."""

    def __init__(self, policy: Policy) -> None:
        self.seconds = 0.0
        for name in ("add", "next", "admit", "serve", "finish", "refresh"):
            setattr(policy, name, self.timed(getattr(policy, name)))

    def timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        clock = time.perf_counter

        def call(*args: Any, **options: Any) -> Any:
            begin = clock()
            result = method(*args, **options)
            self.seconds += clock() - begin
            return result

        return call


def policy_cost(engine: Any, tokens: int) -> dict[str, Any]:
    """What the policy takes of a step while MANY requests wait: for each that ends, another of its client comes."""
    policy, numbers = policy_of(engine), itertools.count()
    clients = [f"client {c}" for c in range(4)]

    def come(count: int) -> None:
        for number in itertools.islice(numbers, count):
            engine.submit(rows_of(clients[number % len(clients)], 1, number, tokens))

    come(MANY + engine.capacity().max_running)
    for _ in range(WARM_STEPS):
        come(len(engine.step()))
    stopwatch, waiting = Stopwatch(policy), []
    begin = time.perf_counter()
    for _ in range(COST_STEPS):
        come(len(engine.step()))
        waiting.append(len(policy))
    step = (time.perf_counter() - begin) / COST_STEPS
    return {"waiting": round(statistics.mean(waiting)), "step_s": step, "policy_s": stopwatch.seconds / COST_STEPS}


def run(engine: Any, requests: list[Request]) -> dict[str, Any]:
    policy, meter = policy_of(engine), GapMeter()
    backlog = engine._queued if hasattr(engine, "_queued") else engine._waiting  # what is still text
    before = dict(engine.stats())
    service = dict(policy.service)
    clients = {request.request_id: request.client.name for request in requests}
    left = {name: sum(client == name for client in clients.values()) for name in set(clients.values())}
    done: dict[str, tuple[float, float]] = {}
    seconds, most_waiting = [], 0
    engine.submit(requests)
    begin = time.perf_counter()
    while engine.has_work():
        step = time.perf_counter()
        finished = engine.step()
        seconds.append(time.perf_counter() - step)
        most_waiting = max(most_waiting, len(policy))
        waiting = {clients[request_id] for request_id in backlog}.union(policy.waiting)
        meter.observe({name: value - service.get(name, 0.0) for name, value in policy.service.items()}, waiting)
        for row in finished:
            name = clients[row.request_id]
            left[name] -= 1
            if not left[name]:
                done[name] = (time.perf_counter() - begin, engine.stats()["steps"] - before["steps"])
    after = engine.stats()
    counts = {name: after[name] - before[name] for name in ("steps", "prompt_tokens", "cached_tokens", "output_tokens")}
    wall = time.perf_counter() - begin
    return {
        **counts,
        "makespan_s": round(wall, 3),
        "max_gap": meter.widest,
        "done_s": {name: round(at, 3) for name, (at, _) in done.items()},
        "done_steps": {name: steps for name, (_, steps) in done.items()},
        "hit_rate": round(counts["cached_tokens"] / max(1, counts["prompt_tokens"]), 3),
        "tokens_per_s": round((counts["prompt_tokens"] + counts["output_tokens"]) / wall, 1),
        "most_waiting": most_waiting,
        "step_ms": round(1e3 * statistics.median(seconds), 3),
    }


def main() -> None:
    job = json.loads(sys.argv[1])
    engine = create_engine(ModelRef(**job["model"]))
    engine.submit(rows_of("warm up", job["light"], 10**7, job["tokens"]))
    while engine.has_work():
        engine.step()
    if job["cost"]:
        result = policy_cost(engine, job["tokens"])
    else:
        both = rows_of("heavy", job["heavy"], 0, job["tokens"]) + rows_of("light", job["light"], 10**5, job["tokens"])
        alone = run(engine, rows_of("light", job["light"], 10**6, job["tokens"]))
        result = {"alone": alone, **run(engine, both)}
    print(json.dumps(result))
    engine.close()


if __name__ == "__main__":
    main()
