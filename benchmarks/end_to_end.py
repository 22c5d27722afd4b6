"""A filter over the movies table through Spark, beside the same prompts fed to the engine directly, in one run.

    python benchmarks/end_to_end.py --rows 2000 --engine native --order planned --json

Prints one JSON line and appends it to benchmarks/results/end_to_end.jsonl. `engine_s` is the direct run; `planning_s`
ends when Spark has the physical plan; `transport_s` is the rest of `wall_s`: Spark, Python workers, sockets. The
session is warm: `--warm-ups` other questions have been asked about the same table, which leaves neither answers nor
prefixes to reuse, since the question comes first. With `--pairs N` the query runs N times, between N + 1 direct runs,
and each is compared with the mean of its two neighbours, since the speed of a shared machine drifts; the line is the
one of the median overhead.
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
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from memory import PeakMemory
from spark_llm.optimizer.core import CallSpec, Field
from spark_llm.optimizer.plan import plan_call
from spark_llm.serving.client import connect
from spark_llm.serving.worker.package import link_package
from tables import movies

import spark_llm
from spark_llm.conf import Settings
from spark_llm.executor.connect import worker_conf
from spark_llm.executor.runner import CallRunner, Window

HERE = Path(__file__).resolve().parent
QUESTIONS = ("Is the movie suitable for kids?", "Is it a comedy?", "Did the critics like it?", "Is it a long movie?")
"""One per run in turn, so that none finds the prefixes of the last one in the cache."""


def main() -> None:
    arguments = parse_arguments()
    source, table = movies(arguments.rows)
    if arguments.order == "shuffled":
        table = table.take(pa.array(random.Random(1).sample(range(table.num_rows), table.num_rows)))
    with tempfile.TemporaryDirectory() as folder:
        line = measure(arguments, table, Path(folder))
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    line = {"table": source, "engine": arguments.engine, "order": arguments.order, **line, **machine}
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    with (results / "end_to_end.jsonl").open("a") as out:
        out.write(json.dumps(line) + "\n")
    print(json.dumps(line) if arguments.json else "\n".join(f"{k:>24}  {v}" for k, v in line.items()))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--engine", choices=["native", "vllm", "stub"], default="native")
    parser.add_argument("--order", choices=["planned", "natural", "shuffled"], default="planned")
    parser.add_argument("--model", default="default", help="model directory; the embedded model by default")
    parser.add_argument("--vllm-python", default=str(HERE.parent / ".venvs" / "vllm" / "bin" / "python"))
    parser.add_argument("--warm-ups", type=int, default=3, help="runs of the query before the first that counts")
    parser.add_argument("--pairs", type=int, default=1, help="runs of the query")
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")
    return parser.parse_args()


def session_conf(arguments: argparse.Namespace, folder: Path) -> dict[str, str]:
    conf = {
        "spark.llm.engine": arguments.engine,
        "spark.llm.model": arguments.model,
        "spark.llm.worker.dir": str(folder / "worker"),
        "spark.llm.worker.idleSeconds": "300",
        "spark.llm.report.enabled": "false",
    }
    if arguments.engine == "vllm":
        conf["spark.llm.engine.vllm.python"] = arguments.vllm_python
    if arguments.order != "planned":
        conf["spark.llm.optimize.order.enabled"] = "false"
    return conf


def measure(arguments: argparse.Namespace, table: pa.Table, folder: Path) -> dict[str, Any]:
    conf = session_conf(arguments, folder)
    pq.write_table(table, folder / "movies.parquet", row_group_size=2500)
    fields = ", ".join(table.column_names)
    query = f"SELECT count(*) FROM movies WHERE llm_filter('{{question}}', {fields})"
    spark = start(conf, folder)
    try:
        spark.read.parquet(str(folder / "movies.parquet")).createOrReplaceTempView("movies")
        for turn in range(arguments.warm_ups):
            spark.sql(query.format(question=f"Warm-up {turn}?")).collect()
        with PeakMemory(driver="SparkSubmit", python_worker="pyspark.daemon", engine="serving.worker") as memory:
            pairs = compare(arguments, spark, query, conf, table, folder)
    finally:
        spark.stop()
    overheads = [round((pair["planning_s"] + pair["transport_s"]) / pair["engine_s"], 3) for pair in pairs]
    median = pairs[overheads.index(sorted(overheads)[len(pairs) // 2])]
    peaks = {name: round(value) for name, value in memory.mib.items()}
    return {**median, "overheads": overheads, "peak_mib": peaks}


def compare(
    arguments: argparse.Namespace, spark: Any, query: str, conf: dict[str, str], table: pa.Table, folder: Path
) -> list[dict[str, Any]]:
    """The query through Spark N times, between N + 1 runs of its prompts in an engine of their own."""
    pairs = []
    before = run_directly(arguments, QUESTIONS[0], conf, table, folder)
    for question in itertools.islice(itertools.cycle(QUESTIONS), arguments.pairs):
        line = run_through_spark(spark, query.format(question=question), conf)
        after = run_directly(arguments, question, conf, table, folder)
        engine = (before["engine_s"] + after["engine_s"]) / 2
        pairs.append(
            {
                "rows": table.num_rows,
                "distinct_calls": after["rows"],
                "wall_s": round(line["wall_s"], 3),
                "planning_s": round(line["planning_s"], 3),
                "transport_s": round(line["wall_s"] - line["planning_s"] - engine, 3),
                "engine_s": round(engine, 3),
                "rows_per_s": round(table.num_rows / line["wall_s"], 1),
                "prompt_tokens": after["prompt"],
                "cached_tokens": after["cached"],
                "output_tokens": after["output"],
                "spark": line["spark"],
            }
        )
        before = after
    return pairs


def run_through_spark(spark: Any, query: str, conf: dict[str, str]) -> dict[str, Any]:
    begin = time.perf_counter()
    frame = spark.sql(query)
    frame._jdf.queryExecution().executedPlan()
    planned = time.perf_counter()
    frame.collect()
    end = time.perf_counter()
    return {"wall_s": end - begin, "planning_s": planned - begin, "spark": spark_llm_stats(conf)}


def start(conf: dict[str, str], folder: Path) -> Any:
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[2]").appName("end_to_end")
    quiet = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "ERROR",
        "spark.sql.shuffle.partitions": "4",
        "spark.driver.memory": "2g",
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
    }
    for key, value in {**quiet, **conf}.items():
        builder = builder.config(key, value)
    return spark_llm.configure(builder).getOrCreate()


def spark_llm_stats(conf: dict[str, str]) -> dict[str, Any]:
    """The worker's own counters of the run through Spark."""

    clients = connect(worker_conf(Settings(conf))).stats()["clients"]
    latest = [client for client in clients if client["calls"]][-1]
    return {name: latest.get(name) for name in ("rows", "calls", "shared", "errors", "prompt", "cached", "output")}


def run_directly(
    arguments: argparse.Namespace, question: str, conf: dict[str, str], table: pa.Table, folder: Path
) -> dict[str, Any]:
    """The same prompts, window by window as a task would plan them, in one engine without Spark."""
    spec = CallSpec("llm_filter", question, tuple(Field(n) for n in table.column_names), {}, "boolean", conf)
    if arguments.order == "planned":
        spec = with_plan(spec, table)
    runner = CallRunner(spec)
    batch = [column.combine_chunks() for column in table.columns]
    window = Window([batch], len(spec.fields), runner.value_type, share=True, known=False)
    columns = window.tuples()
    rows = range(len(columns[0]))
    questions = runner.questions(columns, rows, [b""] * len(rows), window)
    model = runner.settings.model()
    recorded = {"model": asdict(model), "call": runner.call.to_dict(), "requests": [q.segments for q in questions]}
    (folder / "requests.json").write_text(json.dumps(recorded))
    python = model.python or sys.executable
    command = [python, str(HERE / "engine_direct.py"), str(folder / "requests.json")]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    if model.python:
        environment["PYTHONPATH"] = str(link_package(folder / "package"))
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        sys.exit(f"the direct run failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def with_plan(spec: CallSpec, table: pa.Table) -> CallSpec:
    """The call with the field order that the planner chooses for this table."""
    sample = [column.slice(0, 2000).to_pylist() for column in table.columns]
    return replace(spec, plan=plan_call(spec, sample, table.num_rows))


if __name__ == "__main__":
    main()
