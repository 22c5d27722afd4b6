"""How the policies share an engine: who waits, what the prefix cache keeps, and what the policy costs.

    python benchmarks/fairness.py simulator|vllm|native|spark|cost --json

simulator: four clients with private shared prefixes on a simulated engine. vllm, native: 800 rows of a heavy client
queued before 100 of a light one, on the real engine, all policies in turn. spark: the same as two concurrent Spark
queries. cost: time spent in the policy while 1,000 requests wait, beside the steps of both engines.

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
from spark_llm.serving.scheduler.d2lpm import HostDeficits
from spark_llm.serving.scheduler.dlpm import QUANTUM
from spark_llm.serving.scheduler.lpm import LongestPrefixMatch
from spark_llm.serving.scheduler.policies import create_policy
from spark_llm.serving.scheduler.simulator import GapMeter, SimulatedRequest, Simulator, StepTime, run_hosts
from spark_llm.serving.worker.package import link_package

HERE = Path(__file__).resolve().parent
Line = dict[str, Any]
SIMULATED: dict[str, Any] = {"kv_tokens": 40_000, "step_tokens": 2048, "max_running": 256, "prefixes": 8}
COUNTS, PROMPT, SHARED, OUTPUT = (600, 200, 200, 200), 1088, 1024, 32
HEAVY, TOKENS = 800, 32
RATIO = 8
"""Rows of the heavy client for each of the light one."""
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
        # lpm: the order of all of them, whatever that costs
        policy = LongestPrefixMatch(limit=len(requests)) if name == "lpm" else create_policy(name)
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
    if not arguments.policies:
        yield from hosts(requests)


def hosts(requests: list[SimulatedRequest]) -> Iterator[Line]:
    """The same requests over three hosts, each under DLPM: by D2LPM, and in turn; the gap is that of one host."""
    names, quantum = ["h1", "h2", "h3"], 20_000.0
    router, turns = HostDeficits(names, quantum), itertools.cycle(names)
    ways: dict[str, Any] = {
        "d2lpm": lambda one, cached: router.choose(one.client.name, cached, one.prompt - max(cached.values())),
        "dlpm, hosts in turn": lambda *_: next(turns),
    }
    for name, choose in ways.items():
        simulators = {host: Simulator(create_policy("dlpm"), **SIMULATED) for host in names}
        run_hosts(requests, simulators, choose)
        outcomes = [simulator.outcome for simulator in simulators.values()]
        prompts, cached, answers = (
            sum(getattr(outcome, kind) for outcome in outcomes)
            for kind in ("prompt_tokens", "cached_tokens", "output_tokens")
        )
        makespan = max(outcome.seconds for outcome in outcomes)
        yield {
            "policy": name,
            "hosts": len(names),
            "hit_rate": round(cached / prompts, 4),
            "makespan_s": round(makespan, 2),
            "max_gap": max(simulator.gap.widest for simulator in simulators.values()),
            "bound": bound("dlpm", QUANTUM, PROMPT, OUTPUT, SIMULATED["kv_tokens"] // (PROMPT + OUTPUT)),
            "light_done_s": None,
            "tokens_per_s": round((prompts + answers) / makespan, 1),
            "setup": {**SIMULATED, "quantum": QUANTUM, "host_quantum": quantum, "step_time": asdict(StepTime())},
        }


def engine(arguments: argparse.Namespace) -> Iterator[Line]:
    """A heavy client queued before a light one; random weights for vLLM, so that answers have their full length."""
    name = arguments.mode
    for policy in chosen(arguments, "fcfs,vtc,dlpm"):
        args = {**SMALL, "policy": policy, "dtype": "float32", **({"load_format": "dummy"} if name == "vllm" else {})}
        result = engine_run(arguments, name, args, arguments.rows, arguments.rows // RATIO)
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
            "setup": {"heavy": arguments.rows, "light": arguments.rows // RATIO, "output": TOKENS, **args},
        }


def cost(arguments: argparse.Namespace) -> Iterator[Line]:
    """What policies that tell clients apart take of a step of either engine while 1,000 requests wait."""
    for name in ("native", "vllm"):
        for policy in chosen(arguments, "vtc,dlpm"):
            args = {"max_running": 256, "max_length": 512, "kv_tokens": 65_536, "policy": policy, "dtype": "float32"}
            args |= {"load_format": "dummy"} if name == "vllm" else {}
            run = engine_run(arguments, name, args, 1000, 100, cost=True)
            yield {
                "policy": policy,
                "engine": name,
                "waiting": run["waiting"],
                "running": args["max_running"],
                "policy_us_per_step": round(1e6 * run["policy_s"], 1),
                "step_ms": round(1e3 * run["step_s"], 2),
                "policy_share": round(run["policy_s"] / run["step_s"], 5),
                "share_of_25_ms": round(run["policy_s"] / 0.025, 5),
            }


def engine_run(
    arguments: argparse.Namespace, name: str, args: dict[str, Any], heavy: int, light: int, *, cost: bool = False
) -> dict[str, Any]:
    model = ModelRef("default", name, arguments.vllm_python if name == "vllm" else "", args)
    job = {"model": asdict(model), "heavy": heavy, "light": light, "tokens": TOKENS, "cost": cost}
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

    args: dict[str, Any] = {**SMALL, "policy": policy, "max_running": 16}
    conf = {"spark.llm.engine.args": json.dumps(args), "spark.llm.worker.dir": str(folder / f"worker-{number}")}
    worker = connect(worker_conf(Settings(conf)))
    ask(context, conf, "warm", 20)
    begin = time.perf_counter()
    ask(context, conf, "alone", rows // RATIO)
    alone = time.perf_counter() - begin
    steps = engine_steps(worker.stats())
    known = {client["client"] for client in worker.stats()["clients"]}
    ends: dict[str, float] = {}

    def query(name: str, count: int) -> None:
        started = time.perf_counter()
        ask(context, conf, name, count)
        ends[name] = time.perf_counter() - started

    threads = [threading.Thread(target=query, args=job) for job in (("heavy", rows), ("light", rows // RATIO))]
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
        meter.observe(served, [names[client] for client, row in clients.items() if row["queued"]])
        time.sleep(0.01)
    makespan = time.perf_counter() - begin
    stats = worker.stats()
    usage = [c for c in stats["clients"] if c["client"] not in known]
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
        "steps": engine_steps(stats) - steps,
        "setup": {"heavy": rows, "light": rows // RATIO, **args},
    }


def engine_steps(stats: dict[str, Any]) -> int:
    return sum(int(model["counters"]["steps"]) for model in stats["models"])


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
