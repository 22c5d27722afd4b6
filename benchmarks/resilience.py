"""What faults cost: processes killed or stopped at random points under load, bad rows and sockets, a full disk, a soak.

    python benchmarks/resilience.py --json
    python benchmarks/resilience.py --faults soak,driver_kill --rows 2000 --json

One JSON line per fault, appended to benchmarks/results/resilience.jsonl: `fault, rows, faults, lost, duplicated, wrong,
error_rows, repeated_calls, allowed_repeats, left_behind, seconds`. The stub engine answers with the prompt itself, so
`wrong` compares every answer with that of an undisturbed run, and it writes down every prompt that it computes, so
`repeated_calls` is counted at the engine. `allowed_repeats` is a batch of the engine for each task and fault.

The soak stands for 30 minutes of an engine that answers 20 rows a second: 36,000 rows, of which 5 % fail once for a
passing cause, while every thousandth row (50 seconds) brings a kill or a stop of engine or worker. `log_full` runs
Spark with a result log on a file system of 48 KiB (`unshare` mounts it); `driver_kill` runs the query again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from spark_llm.serving.client import WorkerClient, connect
from spark_llm.serving.core import Call, EngineFailure, Finished, ModelRef, Request
from spark_llm.serving.worker.rendezvous import Rendezvous, WorkerConf, worker_key

HERE = Path(__file__).resolve().parent
CALL = Call("c", "Q ")
TASKS, BATCH = 4, 32
POISON, FLAKY = "POISON", "FLAKY"
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
LOG_FILE_SYSTEM = 'mount -t tmpfs -o size=48k tmpfs "$0" && exec "$@"'
JOB_SECONDS = 150


@dataclass
class Host:
    """A worker with the stub engine in a folder of its own, and what its engines have computed."""

    folder: Path
    args: dict[str, Any] = field(default_factory=dict)
    conf: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.folder / "calls").mkdir(parents=True)
        self.worker = WorkerConf(dir=str(self.folder / "worker"), idle_seconds=30, **self.conf)
        self.client: WorkerClient = connect(self.worker)
        args = {"calls_dir": str(self.folder / "calls"), "batch": BATCH, "echo": True, **self.args}
        self.model = ModelRef(engine="stub", args=args)

    def asked(self) -> list[str]:
        return [line for file in (self.folder / "calls").glob("*.calls") for line in file.read_text().split()]

    def calls(self) -> int:
        """How many prompts the engines have computed, repeated ones too."""
        return sum(file.stat().st_size for file in (self.folder / "calls").glob("*.calls")) // 65

    def pids(self) -> tuple[int, list[int]]:
        """Front and replicas."""
        stats = self.client.stats()
        return stats.get("pid", 0), [model["pid"] for model in stats.get("models", ()) if "pid" in model]

    def end(self) -> int:
        """End the worker; how many of its processes and files other than its log are left."""
        front, replicas = self.pids()
        self.client.shutdown()
        deadline = time.monotonic() + 20
        while (left := sum(map(_alive, [front, *replicas]))) and time.monotonic() < deadline:
            time.sleep(0.05)
        rendezvous = Rendezvous(self.folder / "worker", worker_key(self.worker.gpus))
        marks = [file for kind in ("lock", "pid") for file in rendezvous.folder.glob(f"*.{kind}")]
        return left + len(marks) + sum(file.exists() for file in (rendezvous.file, rendezvous.socket))


def _alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return pid > 0 and status.exists() and "zombie" not in status.read_text()


def ask(host: Host, texts: Sequence[str]) -> Counter[tuple[int, str | None, str]]:
    """All texts through `TASKS` streams of one query; how often each (row, answer, condition) came back."""
    seen: list[tuple[int, str | None, str]] = []
    problems: list[EngineFailure] = []

    def task(number: int) -> None:
        mine = range(number, len(texts), TASKS)
        wanted = len(mine)
        try:
            with host.client.exchange(CALL, host.model, "resilience", "1", "default") as exchange:
                for start in range(0, wanted, 1000):
                    exchange.submit([_request(i, texts[i]) for i in mine[start : start + 1000]])
                    rows: list[Finished] = []
                    due = len(mine[start : start + 1000])
                    while len(rows) < due:
                        rows += exchange.poll(1.0)
                    seen.extend((row.request_id, row.text, row.error.condition if row.error else "") for row in rows)
        except EngineFailure as failure:
            problems.append(failure)

    threads = [threading.Thread(target=task, args=(number,)) for number in range(TASKS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]
    return Counter(seen)


def _request(number: int, text: str) -> Request:
    return Request(number, CALL, (text,), text.encode().ljust(32)[:32])


@contextlib.contextmanager
def faults(host: Host, inject: Callable[[], None] | None, rows: int, count: int) -> Iterator[list[int]]:
    """Call `inject` at `count` random points of the block's progress, as the engine counts it; where it did.

    By progress, not by time: a machine under load starts processes slowly, and nothing is lost before it was given.
    """
    stop, done = threading.Event(), list[int]()
    points = sorted(random.Random(5).randrange(rows) for _ in range(count))

    def run() -> None:
        while inject and points and not stop.wait(0.02):
            if host.calls() >= points[0]:
                with contextlib.suppress(Exception):  # the worker may be between two lives: then later
                    inject()
                    done.append(points.pop(0))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join()


def disturb(
    fault: str,
    rows: int,
    host: Host,
    inject: Callable[[], None] | None = None,
    count: int = 0,
    bad: float = 0.0,
    after: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Ask `rows` rows while `inject` strikes `count` times, then call `after`; one line of results."""
    rng = random.Random(11)
    texts = [f"row {i}" + (f" {FLAKY}" if rng.random() < bad else "") for i in range(rows)]
    if "crash_marker" in host.args:
        texts[rows * 2 // 3] += f" {POISON}"
    started = time.monotonic()
    with faults(host, inject, rows, count) as struck:
        seen = ask(host, texts)
    after()
    calls, flaky = Counter(host.asked()), sum(FLAKY in text for text in texts)
    times = Counter(number for number, _, _ in seen.elements())
    errors = [number for number, _, condition in seen if condition]
    wrong = sum(text != f"Q {texts[number]}" for number, text, condition in seen if not condition)
    return {
        "fault": fault,
        "rows": rows,
        "faults": len(struck) + flaky + ("crash_marker" in host.args),
        "lost": rows - len(times),
        "duplicated": sum(count - 1 for count in times.values()),
        "wrong": wrong,
        "error_rows": len(errors),
        "repeated_calls": sum(count - 1 for count in calls.values()),
        "allowed_repeats": len(struck) * BATCH * TASKS + flaky,
        "left_behind": host.end(),
        "seconds": round(time.monotonic() - started, 1),
    }


def _strike(host: Host, who: str, what: signal.Signals) -> None:
    front, replicas = host.pids()
    victims = [front] if who == "front" else replicas
    for pid in filter(_alive, victims):
        os.kill(pid, what)


def undisturbed(folder: Path, rows: int) -> dict[str, Any]:
    return disturb("none", rows, Host(folder, {"delay_ms": 5}))


def engine_kill(folder: Path, rows: int) -> dict[str, Any]:
    host = Host(folder, {"delay_ms": 5})
    return disturb("engine_kill", rows, host, lambda: _strike(host, "engine", signal.SIGKILL), 5)


def engine_hang(folder: Path, rows: int) -> dict[str, Any]:
    host = Host(folder, {"delay_ms": 5}, {"hang_seconds": 5.0})
    return disturb("engine_hang", rows, host, lambda: _strike(host, "engine", signal.SIGSTOP), 3)


def worker_kill(folder: Path, rows: int) -> dict[str, Any]:
    host = Host(folder, {"delay_ms": 5})
    return disturb("worker_kill", rows, host, lambda: _strike(host, "front", signal.SIGKILL), 3)


def one_bad_row(folder: Path, rows: int) -> dict[str, Any]:
    """A row that ends the engine's process whenever it is computed."""
    return disturb("one_bad_row", rows, Host(folder, {"crash_marker": POISON, "crash_times": 99}))


def soak(folder: Path, rows: int) -> dict[str, Any]:
    """5 % of the rows fail once for a passing cause, while engine and worker are killed and stopped in turn."""
    host = Host(folder, {"delay_ms": 10, "flaky_marker": FLAKY}, {"hang_seconds": 5.0})
    rng = random.Random(3)
    kinds = [("engine", signal.SIGKILL), ("engine", signal.SIGSTOP), ("front", signal.SIGKILL)]
    return disturb("soak", rows, host, lambda: _strike(host, *rng.choice(kinds)), rows // 1000, 0.05)


def bad_sockets(folder: Path, rows: int) -> dict[str, Any]:
    """Connections that say nothing, half a greeting or nonsense and stay, and clients that read slowly."""
    host = Host(folder, {"delay_ms": 5})
    held: list[socket.socket] = []
    slow: list[threading.Thread] = []
    done = threading.Event()

    def crawl(number: int) -> None:
        with host.client.exchange(CALL, host.model, "slow", str(number), "default") as exchange:
            exchange.submit([Request(i, CALL, (f"slow {number} {i} {'x' * 9999}",)) for i in range(200)])
            while not done.wait(0.2):
                exchange.poll(0.1)

    def open_more() -> None:
        place = str(Rendezvous(folder / "worker", worker_key(host.worker.gpus)).socket)
        for said in (b"", GREETING[:7], GREETING, GREETING + b"\0" * 9, random.Random(1).randbytes(999)):
            half = socket.socket(socket.AF_UNIX)
            half.connect(place)
            half.sendall(said)
            held.append(half)
        slow.append(threading.Thread(target=crawl, args=(len(slow),)))
        slow[-1].start()

    def close() -> None:
        done.set()
        for thread in slow:
            thread.join()
        for half in held:
            half.close()

    return disturb("bad_sockets", rows, host, open_more, 5, after=close)


def descendants(pid: int) -> dict[int, str]:
    """The processes below `pid`, with their command lines."""
    found = {pid: ""}
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    stack = [pid]
    while stack:
        for child in children.get(stack.pop(), ()):
            with contextlib.suppress(OSError):
                found[child] = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            stack.append(child)
    del found[pid]
    return found


def victims(fault: str, job: int) -> list[int]:
    """Which processes of a Spark application a fault kills."""
    below = descendants(job)
    if fault == "python_worker_kill":
        daemons = [pid for pid, command in below.items() if "pyspark.daemon" in command]
        return [pid for daemon in daemons for pid in descendants(daemon)]
    if fault == "driver_kill":
        return [*below, job]
    return [pid for pid, command in below.items() if "CoarseGrainedExecutorBackend" in command][:1]


def spark_fault(fault: str, folder: Path, rows: int) -> dict[str, Any]:
    """Kill at half of the calls; for the driver, run the query again from a result log."""
    host = Host(folder, {"delay_ms": 100})
    conf = {
        "spark.master": "local-cluster[2,1,1024]" if fault == "executor_kill" else "local[2,4]",
        "spark.llm.engine": "stub",
        "spark.llm.engine.args": json.dumps(dict(host.model.args)),
        "spark.llm.worker.dir": host.worker.dir,
        "spark.llm.window.rows": "256",
        "spark.llm.resultLog.path": str(folder / "log"),
    }
    started, out = time.monotonic(), folder / "answers.json"
    command = [sys.executable, str(HERE / "resilience_job.py"), json.dumps(conf), str(rows), str(out)]
    if fault == "log_full":
        (folder / "log").mkdir()
        command = ["unshare", "-rm", "sh", "-c", LOG_FILE_SYSTEM, str(folder / "log"), *command]
    struck: list[int] = []
    with (folder / "job.log").open("wb") as log:
        job = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "SPARK_LOCAL_IP": "127.0.0.1"})
        if fault != "log_full":
            while host.calls() < rows // 2 and job.poll() is None:
                time.sleep(0.1)
            struck = victims(fault, job.pid)
        for pid in struck:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        job.wait(JOB_SECONDS)
        if fault == "driver_kill":
            subprocess.run(command, stdout=log, stderr=log, check=False, timeout=JOB_SECONDS)
    answers = json.loads(out.read_text()) if out.exists() else []
    times, calls = Counter(number for number, _ in answers), Counter(host.asked())
    full = fault == "log_full" and "LLM_RESULT_LOG" in (folder / "job.log").read_text()
    return {
        "fault": fault,
        "rows": rows,
        "faults": len(struck) + full,
        "lost": rows - len(times),
        "duplicated": sum(count - 1 for count in times.values()),
        "wrong": sum(f'"row {number}"' not in (text or "") for number, text in answers),
        "error_rows": sum(text is None for _, text in answers),
        "repeated_calls": sum(count - 1 for count in calls.values()),
        "allowed_repeats": {"driver_kill": 2 * 256, "log_full": 0}.get(fault, 2 * BATCH),
        "left_behind": host.end(),
        "seconds": round(time.monotonic() - started, 1),
    }


FAULTS: dict[str, tuple[Callable[[Path, int], dict[str, Any]], int]] = {
    "none": (undisturbed, 10_000),
    "engine_kill": (engine_kill, 10_000),
    "engine_hang": (engine_hang, 10_000),
    "worker_kill": (worker_kill, 10_000),
    "bad_sockets": (bad_sockets, 10_000),
    "one_bad_row": (one_bad_row, 100_000),
    "soak": (soak, 36_000),
    "python_worker_kill": (partial(spark_fault, "python_worker_kill"), 4000),
    "executor_kill": (partial(spark_fault, "executor_kill"), 4000),
    "driver_kill": (partial(spark_fault, "driver_kill"), 4000),
    "log_full": (partial(spark_fault, "log_full"), 4000),
}
"""What strikes, and on how many rows by default."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, help="rows of each fault")
    parser.add_argument("--faults", default=",".join(FAULTS), help="of them, divided by commas")
    parser.add_argument("--json", action="store_true", help="print JSON lines")
    arguments = parser.parse_args()
    (HERE / "results").mkdir(exist_ok=True)
    for name in arguments.faults.split(","):
        run, rows = FAULTS[name]
        folder = Path(tempfile.mkdtemp(prefix="llm-"))
        line = run(folder, arguments.rows or rows)
        shutil.rmtree(folder, ignore_errors=True)
        with (HERE / "results" / "resilience.jsonl").open("a") as out:
            out.write(json.dumps(line) + "\n")
        print(json.dumps(line) if arguments.json else "  ".join(f"{k} {v}" for k, v in line.items()), flush=True)


if __name__ == "__main__":
    main()
