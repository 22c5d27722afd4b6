"""The result log under faults, what it costs, and how fast it is read.

    python benchmarks/result_log.py --json                    # all of it, about three minutes
    python benchmarks/result_log.py --fault driver --rows 6000 --json

One JSON line each, appended to benchmarks/results/result_log.jsonl:

- `driver`: `kill -9` of the driver when the stub engine has answered half of the rows, then the same query again.
- `executor`: `kill -9` of one of two executors (local-cluster) at half of the rows; the query goes on.
- `overhead`: a filter over reviews on the embedded model, log off and on in turn, asked by the executor's code without
  Spark. `cpu_share` is the additional CPU time of the asking process over the engine's seconds, `wall_share` the median
  ratio of the pairs' times, minus one.
- `read`: a query over as many distinct rows (a Parquet table) as the log has answers, on two cores: distinct tuples,
  join with the log, Python, join back. `query_s` is the median of three runs in a session that has run it once
  (`first_s`, with the JVM's warming up), `query_cpu_s` the CPU seconds of its processes. The log is compacted, or as
  tasks leave it (`read_merged`: files of 8,192 answers), or in batches of 256 that nothing merged (`read_batches`).

Calls are counted at the engine: one line of a file for each prompt that it was asked.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyspark
from pyarrow import fs
from pyspark.sql import SparkSession
from spark_llm.optimizer.core import CallSpec, Field
from spark_llm.optimizer.identity import IdentityRule
from spark_llm.optimizer.prompts import prepare
from spark_llm.serving.client import connect

import spark_llm
from spark_llm.conf import Settings
from spark_llm.executor.connect import worker_conf
from spark_llm.executor.udf import bind
from spark_llm.result_log.batches import make_batch, to_bytes
from spark_llm.result_log.call import call_folder
from spark_llm.result_log.files import LogFile, list_folder
from spark_llm.result_log.writer import BATCH_ANSWERS

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "result_log.jsonl"
INSTRUCTION = "Sum up."
TASKS = 2
Outcome = dict[str, Any]


def text_of(number: int) -> str:
    return f"row number {number}"


class Calls:
    """What the stub engine was asked, over all of its processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def lines(self) -> list[str]:
        return [line for file in self.folder.glob("*.calls") for line in file.read_text().split()]

    def wait_for(self, number: int, running: subprocess.Popen) -> None:
        while len(self.lines()) < number and running.poll() is None:
            time.sleep(0.02)

    def settled(self) -> int:
        """The number of calls when the engine has stopped."""
        before = -1
        while (now := len(self.lines())) != before:
            before = now
            time.sleep(1.0)
        return now


def settings_of(folder: Path) -> dict[str, str]:
    """A session on the stub engine: 16 answers each 20 ms."""
    return {
        "spark.llm.engine": "stub",
        "spark.llm.engine.args": json.dumps({"calls_dir": str(folder / "calls"), "delay_ms": 20, "batch": 16}),
        "spark.llm.worker.dir": str(folder / "worker"),
        "spark.llm.worker.idleSeconds": "20",
        "spark.llm.resultLog.path": str(folder / "log"),
        "spark.llm.partitions": str(TASKS),
        "spark.llm.report.enabled": "false",
    }


def start_driver(folder: Path, rows: int, master: str) -> subprocess.Popen:
    """A process of its own that runs the query and writes its answers to `answers.json`."""
    plan = {"rows": rows, "master": master, "conf": settings_of(folder), "out": str(folder / "answers.json")}
    environment = {**os.environ, "SPARK_HOME": str(Path(pyspark.__file__).parent), "PYSPARK_PYTHON": sys.executable}
    environment["SPARK_LOCAL_IP"] = "127.0.0.1"
    with (folder / "driver.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, __file__, "--drive", json.dumps(plan)],
            env=environment,
            stdout=log,
            stderr=log,
            cwd=folder,
            start_new_session=True,
        )


def drive(plan: dict[str, Any]) -> None:
    """What the driver's process does."""
    spark = make_session(plan["master"], plan["conf"])
    texts = spark.range(plan["rows"]).selectExpr("id", "concat('row number ', id) AS t")
    texts.createOrReplaceTempView("texts")
    answers = spark.sql(f"SELECT id, llm('{INSTRUCTION}', t) AS a FROM texts").collect()
    Path(plan["out"]).write_text(json.dumps([[row.id, row.a] for row in answers]))
    spark.stop()


def make_session(master: str, conf: dict[str, str]) -> SparkSession:
    builder = SparkSession.builder.master(master)
    quiet = {"spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false", "spark.log.level": "ERROR"}
    fixed = {"spark.sql.shuffle.partitions": "4", "spark.driver.host": "127.0.0.1", "spark.driver.memory": "3g"}
    for key, value in {**quiet, **fixed, **conf}.items():
        builder = builder.config(key, value)
    return spark_llm.configure(builder).getOrCreate()


def expected(rows: int) -> list[str]:
    """The answers of an undisturbed run, from the executor's code without Spark, worker and log."""
    conf = {"spark.llm.engine": "stub", "spark.llm.placement": "inprocess"}
    spec = CallSpec("llm", INSTRUCTION, (Field("t"),), conf=conf)
    batch = (pa.array([text_of(i) for i in range(rows)]),)
    return [value for piece in bind(spec.to_json())(iter([batch])) for value in piece.field("value").to_pylist()]


def outcome(fault: str, rows: int, calls: Calls, folder: Path, before: int, allowed: int) -> Outcome:
    answers = json.loads((folder / "answers.json").read_text())
    wanted = expected(rows)
    given = Counter(i for i, answer in answers if answer == wanted[i])
    asked = calls.lines()
    return {
        "fault": fault,
        "rows": rows,
        "lost": rows - len(given),
        "duplicated": len(answers) - len({i for i, _ in answers}),
        "calls_before": before,
        "repeated_calls": len(asked) - len(set(asked)),
        "allowed_repeats": allowed,
    }


def driver_killed(rows: int, folder: Path) -> Outcome:
    """`kill -9` of the driver at half of the rows, then the same query."""
    calls = Calls(folder / "calls")
    master = f"local[{TASKS}]"
    try:
        first = start_driver(folder, rows, master)
        calls.wait_for(rows // 2, first)
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
        before = calls.settled()
        finish(start_driver(folder, rows, master), folder)
        return outcome("driver", rows, calls, folder, before, TASKS * BATCH_ANSWERS)
    finally:
        end_worker(folder)


def executor_killed(rows: int, folder: Path) -> Outcome:
    """`kill -9` of one of two executors at half of the rows."""
    calls = Calls(folder / "calls")
    try:
        driver = start_driver(folder, rows, f"local-cluster[{TASKS},1,1024]")
        calls.wait_for(rows // 2, driver)
        before = len(calls.lines())
        executors = [pid for pid in descendants(driver.pid) if "CoarseGrainedExecutorBackend" in command_of(pid)]
        os.kill(executors[0], signal.SIGKILL)
        finish(driver, folder)
        return outcome("executor", rows, calls, folder, before, BATCH_ANSWERS)
    finally:
        end_worker(folder)


def finish(driver: subprocess.Popen, folder: Path) -> None:
    if driver.wait() != 0:
        sys.exit(f"the driver failed:\n{(folder / 'driver.log').read_text()[-3000:]}")


def end_worker(folder: Path) -> None:
    connect(worker_conf(Settings(settings_of(folder)))).shutdown()


def descendants(root: int) -> list[int]:
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue

    def under(pid: int) -> bool:
        return pid == root or (pid in parents and under(parents[pid]))

    return [pid for pid in parents if under(pid)]


def cpu_seconds(root: int) -> float:
    """CPU seconds of a process and of those below it that live."""
    ticks = 0
    for pid in descendants(root):
        try:
            ticks += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
        except OSError:
            continue
    return ticks / os.sysconf("SC_CLK_TCK")


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def overhead(rows: int, folder: Path, pairs: int = 6) -> Outcome:
    """A filter over reviews on the embedded model, log off and on in turn, every other pair the other way round."""
    reviews = pq.read_table(HERE.parent / "sql_examples" / "data" / "reviews.parquet").to_pylist()
    texts = [f"{reviews[i % len(reviews)]['review']} ({i})" for i in range(rows)]
    conf = {"spark.llm.worker.dir": str(folder / "worker"), "spark.llm.worker.idleSeconds": "20"}
    ask_reviews(texts, {**conf, "spark.app.id": "warm"})
    runs = []
    for pair in range(pairs):
        taken = {}
        for name in ("off", "on") if pair % 2 == 0 else ("on", "off"):
            log = {"spark.llm.resultLog.path": str(folder / f"log{pair}")} if name == "on" else {}
            taken[name] = ask_reviews(texts, {**conf, **log, "spark.app.id": f"{name}{pair}"})
        runs.append((taken["off"], taken["on"]))
    connect(worker_conf(Settings(conf))).shutdown()
    engine_s = statistics.median(off[0] for off, _ in runs)
    return {
        "fault": "overhead",
        "rows": rows,
        "engine_s": round(engine_s, 2),
        "cpu_share": round(statistics.median(on[1] - off[1] for off, on in runs) / engine_s, 4),
        "wall_share": round(statistics.median(on[0] / off[0] for off, on in runs) - 1, 4),
        "pairs_s": [[round(off[0], 2), round(on[0], 2)] for off, on in runs],
        "allowed_share": 0.03,
    }


def ask_reviews(texts: list[str], conf: dict[str, str]) -> tuple[float, float]:
    """Seconds, and CPU seconds of this process."""
    spec = CallSpec("llm_filter", "Is it positive?", (Field("review"),), result_type="boolean", conf=conf)
    start, cpu = time.perf_counter(), time.process_time()
    for _ in bind(spec.to_json())(iter([(pa.array(texts),)])):
        pass
    return time.perf_counter() - start, time.process_time() - cpu


def read(rows: int, folder: Path, state: str = "compacted", runs: int = 3) -> Outcome:
    """The same query over as many rows as the log has answers."""
    conf = {**settings_of(folder), "spark.llm.placement": "inprocess"}
    del conf["spark.llm.engine.args"]
    spec = CallSpec("llm", INSTRUCTION, (Field("t"),), conf=conf)
    rule = IdentityRule.of(prepare(spec))
    place = folder / "log" / call_folder(spec, rule)
    fill(place, rule, rows, FILLS[state])
    numbers = pa.table({"id": range(rows), "t": [text_of(i) for i in range(rows)]})
    for part in range(TASKS):
        bounds = rows * part // TASKS, rows * (part + 1) // TASKS
        (folder / "table").mkdir(exist_ok=True)
        pq.write_table(numbers.slice(bounds[0], bounds[1] - bounds[0]), folder / "table" / f"{part}.parquet")
    spark = make_session(f"local[{TASKS}]", conf)
    spark.read.parquet(str(folder / "table")).createOrReplaceTempView("texts")
    query = f"SELECT id, llm('{INSTRUCTION}', t) AS a FROM texts"
    times = []
    for _ in range(1 + runs):
        cpu, start = cpu_seconds(os.getpid()), time.perf_counter()
        spark.sql(query).write.format("noop").mode("overwrite").save()
        times.append((time.perf_counter() - start, cpu_seconds(os.getpid()) - cpu))
    current = [entry.file for entry in list_folder(fs.LocalFileSystem(), str(place)).current]
    right = spark.sql(query).where("a = concat('answer ', id)").count()
    spark.stop()
    return {
        "fault": f"read {state}",
        "rows": rows,
        "lost": rows - right,
        "files": len(current),
        "mib": round(sum(file.size for file in current) / 2**20, 1),
        "first_s": round(times[0][0], 2),
        "query_s": round(statistics.median(seconds for seconds, _ in times[1:]), 2),
        "query_cpu_s": round(statistics.median(cpu for _, cpu in times[1:]), 2),
        "allowed_s": 10,
    }


FILLS = {"compacted": 1 << 20, "merged": 64 * 256, "batches": 256}
"""Answers in a file: after `spark-llm log --compact`, as tasks leave them, and if every task had been killed."""


def fill(place: Path, rule: IdentityRule, rows: int, answers: int) -> None:
    """Write a log of `rows` answers, `answers` a file."""
    system = fs.LocalFileSystem()
    for start in range(0, rows, answers):
        part = range(start, min(start + answers, rows))
        identities = rule.identities([pa.array([text_of(i) for i in part])], len(part))
        given = [(identity, f"answer {i}") for i, identity in zip(part, identities, strict=True)]
        data = to_bytes(make_batch(given, time.time()), "llm on stub")
        name = LogFile(0, secrets.token_hex(8), 0, 0, len(part), data.size).name
        system.create_dir(str(place))
        (place / name).write_bytes(data)


FAULTS: dict[str, tuple[Callable[[int, Path], Outcome], int]] = {
    "driver": (driver_killed, 6000),
    "executor": (executor_killed, 6000),
    "overhead": (overhead, 20_000),
    "read": (read, 1_000_000),
    "read_merged": (partial(read, state="merged"), 1_000_000),
    "read_batches": (partial(read, state="batches"), 1_000_000),
}
"""Name, what it does, and with how many rows by default."""


def run(faults: Iterable[str], rows: int | None = None) -> Iterable[Outcome]:
    """The outcome of each fault, in a folder of its own that is removed afterwards."""
    for fault in faults:
        measure, default = FAULTS[fault]
        with tempfile.TemporaryDirectory(prefix="result-log-", ignore_cleanup_errors=True) as folder:
            yield measure(rows or default, Path(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fault", choices=FAULTS, action="append", help="one or several; all by default")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--json", action="store_true", help="JSON lines (the only form)")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--drive", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.drive:
        drive(json.loads(given.drive))
        return
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "spark": pyspark.__version__}
    for line in run(given.fault or FAULTS, given.rows):
        text = json.dumps({**line, **machine, "time": time.strftime("%Y-%m-%dT%H:%M:%S")})
        print(text, flush=True)
        with given.results.open("a") as results:
            results.write(text + "\n")


if __name__ == "__main__":
    main()
