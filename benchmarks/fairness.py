"""How the policies share an engine: who waits, what the prefix cache keeps, and what the policy costs.

    python benchmarks/fairness.py simulator|vllm|native|spark|cost --json

simulator: four clients with private shared prefixes on a simulated engine. vllm, native: 400 rows of a heavy client
queued before 100 of a light one, on the real engine, all policies in turn. spark: the same as two concurrent Spark
queries. cost: time spent in the policy at 1,000 waiting requests, beside the steps of the native engine.

One line per policy, appended to benchmarks/results/fairness.jsonl: `max_gap` is the largest difference of service
(computed prompt tokens + 2 * answer tokens) of two clients over any time in which both waited; `bound` is what is
proven for it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from spark_llm.serving.core import ClientRef, ModelRef
from spark_llm.serving.scheduler.dlpm import QUANTUM
from spark_llm.serving.scheduler.policies import create_policy
from spark_llm.serving.scheduler.simulator import GapMeter, SimulatedRequest, Simulator, StepTime
from spark_llm.serving.worker.package import link_package

HERE = Path(__file__).resolve().parent
Line = dict[str, Any]
SIMULATED = {"kv_tokens": 40_000, "step_tokens": 2048, "max_running": 256, "prefixes": 8}
COUNTS, PROMPT, SHARED, OUTPUT = (600, 200, 200, 200), 1088, 1024, 32
HEAVY, LIGHT, TOKENS = 400, 100, 32
SMALL = {"max_running": 32, "max_batch_tokens": 2048, "kv_tokens": 16_384, "max_length": 512, "quantum": 500}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=["simulator", "vllm", "native", "spark", "cost"])
    parser.add_argument("--policies", default="", help="comma-separated; default: those that the figure compares")
    parser.add_argument("--rows", type=int, default=HEAVY, help="of the heavy client")
    parser.add_argument("--vllm-python", default=str(HERE.parent / ".venvs" / "vllm" / "bin" / "python"))
    parser.add_argument("--json", action="store_true", help="JSON lines instead of a table")
    arguments = parser.parse_args()
    modes = {"simulator": simulator, "vllm": engine, "native": engine, "spark": spark, "cost": cost}
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    for line in modes[arguments.mode](arguments):
        line = {"mode": arguments.mode, **line, **machine}
        with (HERE / "results" / "fairness.jsonl").open("a") as out:
            out.write(json.dumps(line) + "\n")
        table = "\n".join(f"{key:>20}  {value}" for key, value in line.items())
        print(json.dumps(line) if arguments.json else f"{table}\n", flush=True)


def bound(policy: str, quantum: float, prompt: int, output: int, requests_at_once: int) -> float | None:
    """2U or 2(U + Q), with U: one prompt, and the answers of all requests that can run at once (costs 1 and 2)."""
    in_flight = prompt + 2 * output * requests_at_once
    return {"vtc": 2.0 * in_flight, "dlpm": 2.0 * (in_flight + quantum)}.get(policy)


def chosen(arguments: argparse.Namespace, default: str) -> list[str]:
    return (arguments.policies or default).split(",")


def simulator(arguments: argparse.Namespace) -> Iterator[Line]:
    """The set-up of docs/scheduling.md: everything queued at time 0, 16 private prefixes for each client."""
    rng = random.Random(1)
    requests = [
        SimulatedRequest(ClientRef(f"client {c}"), PROMPT, OUTPUT, prefix=16 * c + rng.randrange(16), shared=SHARED)
        for c, count in enumerate(COUNTS)
        for _ in range(count)
    ]
    for name in chosen(arguments, "fcfs,lpm,vtc,dlpm"):
        policy = create_policy(name)
        if name == "lpm":
            policy._limit = len(requests)  # the order of all of them, whatever that costs
        run = Simulator(policy, **SIMULATED)
        run.submit(requests)
        outcome = run.run()
        done = [outcome.done([request.client for request in requests], f"client {c}") for c in range(len(COUNTS))]
        yield {
            "policy": name,
            "hit_rate": round(outcome.hit_rate, 4),
            "makespan_s": round(outcome.seconds, 2),
            "max_gap": run.gap.widest,
            "bound": bound(name, QUANTUM, PROMPT, OUTPUT, SIMULATED["kv_tokens"] // (PROMPT + OUTPUT)),
            "light_done_s": round(max(done[1:]), 2),
            "tokens_per_s": round(outcome.tokens_per_second, 1),
            "setup": {**SIMULATED, "quantum": QUANTUM, "weights": [1] * 4, "step_time": asdict(StepTime())},
        }


def engine(arguments: argparse.Namespace) -> Iterator[Line]:
    """A heavy client queued before a light one; random weights for vLLM, so that answers have their full length."""
    name = arguments.mode
    for policy in chosen(arguments, "fcfs,vtc,dlpm"):
        args = {**SMALL, "policy": policy, "dtype": "float32", **({"load_format": "dummy"} if name == "vllm" else {})}
        result = engine_run(arguments, name, args, arguments.rows, arguments.rows // 4)
        alone, both = result["alone"], result
        yield {
            "policy": policy,
            "hit_rate": both["hit_rate"],
            "makespan_s": both["makespan_s"],
            "max_gap": both["max_gap"],
            "bound": bound(policy, SMALL["quantum"], 128, TOKENS, SMALL["max_running"]),
            "light_done_s": both["done_s"]["light"],
            "tokens_per_s": both["tokens_per_s"],
            "light_alone_s": alone["makespan_s"],
            "light_ratio": round(both["done_s"]["light"] / alone["makespan_s"], 3),
            "light_ratio_steps": round(both["done_steps"]["light"] / alone["steps"], 3),
            **{key: both[key] for key in ("steps", "step_ms", "most_waiting")},
            "setup": {"heavy": arguments.rows, "light": arguments.rows // 4, "output": TOKENS, **args},
        }


def cost(arguments: argparse.Namespace) -> Iterator[Line]:
    """The policy alone with 1,000 waiting requests of two clients, beside the native engine's median step."""
    running, ended = 256, 8  # at answers of 32 tokens, of 256 running requests 8 end in each step
    run = engine_run(arguments, "native", {"max_running": running}, 1000, 1000, alone=False)
    for name in chosen(arguments, "fcfs,vtc,dlpm"):
        micros = 1e6 * min(policy_seconds(name, 1000, running, ended) for _ in range(3))
        share = {"policy_share": round(micros / 1e3 / run["step_ms"], 5), "step_ms": run["step_ms"]}
        yield {"policy": name, "waiting": 1000, "running": running, "policy_us_per_step": round(micros, 1), **share}


def policy_seconds(name: str, waiting: int, running: int, ended: int, steps: int = 200) -> float:
    """CPU seconds that a policy takes in a step: every running request gets a token, `ended` end, as many begin."""
    policy, rng, numbers, active = create_policy(name), random.Random(1), itertools.count(), dict[int, int]()
    clients = [ClientRef("heavy"), ClientRef("light")]

    def arrive() -> None:
        number = next(numbers)
        policy.add(number, clients[number % 2], rng.randbytes(400))

    def begin() -> None:
        number = policy.next()
        policy.admit(number)
        policy.serve(number, 100, 0)
        active[number] = 0

    for _ in range(waiting + running):
        arrive()
    for _ in range(running):
        begin()
    started = time.thread_time()
    for _ in range(steps):
        policy.refresh()
        for number in active:
            active[number] += 1
            policy.serve(number, 100, active[number])
        for number in list(active)[:ended]:
            policy.finish(number, active.pop(number))
            arrive()
        for _ in range(ended):
            begin()
    return (time.thread_time() - started) / steps


def engine_run(
    arguments: argparse.Namespace, name: str, args: dict[str, Any], heavy: int, light: int, *, alone: bool = True
) -> dict[str, Any]:
    model = ModelRef("default", name, arguments.vllm_python if name == "vllm" else "", args)
    job = {"model": asdict(model), "heavy": heavy, "light": light, "tokens": TOKENS, "alone": alone}
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    with tempfile.TemporaryDirectory() as folder:
        if model.python:
            environment["PYTHONPATH"] = str(link_package(Path(folder) / "package"))
        command = [model.python or sys.executable, str(HERE / "engine_sharing.py"), json.dumps(job)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        sys.exit(f"the run failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def spark(arguments: argparse.Namespace) -> Iterator[Line]:
    """Two queries in two sessions of one application; the heavy one has rows in flight when the light one starts."""
    with tempfile.TemporaryDirectory() as folder:
        context = start_spark(Path(folder))
        try:
            for number, policy in enumerate(chosen(arguments, "fcfs,dlpm")):
                yield two_queries(context, policy, number, arguments.rows, Path(folder))
        finally:
            context.stop()


def two_queries(context: Any, policy: str, number: int, rows: int, folder: Path) -> Line:
    from spark_llm.serving.client import connect

    from spark_llm.conf import Settings
    from spark_llm.executor.connect import worker_conf

    args = {**SMALL, "policy": policy, "max_running": 16}
    conf = {"spark.llm.engine.args": json.dumps(args), "spark.llm.worker.dir": str(folder / f"worker-{number}")}
    worker = connect(worker_conf(Settings(conf)))
    ask(context, conf, "warm", 20)
    begin = time.perf_counter()
    ask(context, conf, "alone", rows // 4)
    alone = time.perf_counter() - begin
    known = {client["client"] for client in worker.stats()["clients"]}
    ends: dict[str, float] = {}

    def query(name: str, count: int) -> None:
        started = time.perf_counter()
        ask(context, conf, name, count)
        ends[name] = time.perf_counter() - started

    threads = [threading.Thread(target=query, args=job) for job in (("heavy", rows), ("light", rows // 4))]
    begin = time.perf_counter()
    threads[0].start()
    while not (heavy := [c for c in worker.stats()["clients"] if c["client"] not in known and c["rows"] > 0]):
        time.sleep(0.01)
    threads[1].start()
    meter, names, served = GapMeter(), {heavy[0]["client"]: "heavy"}, {}
    while any(thread.is_alive() for thread in threads):
        clients = {c["client"]: c for c in worker.stats()["clients"] if c["client"] not in known}
        for client in clients:
            names.setdefault(client, "light")
        served = {names[c]: row["prompt"] - row["cached"] + 2 * row["output"] for c, row in clients.items()}
        answered = {names[c]: row["rows"] for c, row in clients.items()}
        totals = {"heavy": rows, "light": rows // 4}
        asking = [names[c] for c, row in clients.items() if row["streams"]]
        meter.observe(served, [name for name in asking if answered[name] < totals[name] - args["max_running"]])
        time.sleep(0.01)
    makespan = time.perf_counter() - begin
    usage = [c for c in worker.stats()["clients"] if c["client"] not in known]
    tokens = {name: sum(c[name] for c in usage) for name in ("prompt", "cached", "output")}
    worker.shutdown()
    return {
        "policy": policy,
        "hit_rate": round(tokens["cached"] / max(1, tokens["prompt"]), 3),
        "makespan_s": round(makespan, 3),
        "max_gap": meter.widest,
        "bound": bound(policy, args["quantum"], 128, TOKENS, args["max_running"]),
        "light_done_s": round(ends["light"], 3),
        "tokens_per_s": round((tokens["prompt"] + tokens["output"]) / makespan, 1),
        "light_alone_s": round(alone, 3),
        "light_ratio": round(ends["light"] / alone, 3),
        "heavy_done_s": round(ends["heavy"], 3),
        "setup": {"heavy": rows, "light": rows // 4, **args},
    }


def ask(context: Any, conf: dict[str, str], name: str, rows: int) -> None:
    """One query over `rows` distinct rows, in a session of its own, in two tasks."""
    session = context.newSession()
    for key, value in {**conf, "spark.llm.partitions": "2", "spark.llm.maxTokens": str(TOKENS)}.items():
        session.conf.set(key, value)
    text = f"concat(id * 7919, ' {name} writes about film ', id, ': a story of ', id % 17, ' friends')"
    session.range(rows).selectExpr(f"{text} AS review").createOrReplaceTempView("reviews")
    session.sql("SELECT sum(length(llm('Write a summary.', review))) FROM reviews").collect()


def start_spark(folder: Path) -> Any:
    from pyspark.sql import SparkSession

    import spark_llm

    builder = SparkSession.builder.master("local[4]").appName("fairness")
    quiet = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "ERROR",
        "spark.sql.shuffle.partitions": "2",
        "spark.driver.memory": "2g",
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.llm.report.enabled": "false",
    }
    for key, value in quiet.items():
        builder = builder.config(key, value)
    return spark_llm.configure(builder).getOrCreate()


if __name__ == "__main__":
    main()
