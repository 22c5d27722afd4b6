"""A worker of its own for each test, with the stub engine: what the tests of the worker share."""

import os
import time
from pathlib import Path

import pytest
from spark_llm.serving.client import DEFAULT_TERMS, WorkerConf, connect
from spark_llm.serving.core import Call, EngineFailure, ModelRef, Request
from spark_llm.serving.worker.rendezvous import Rendezvous, worker_key


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "zombie" not in Path(f"/proc/{pid}/status").read_text() if Path("/proc").exists() else True


def wait_until(condition, seconds=20.0):
    """Poll, so that tests assert states and never durations."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the state was never reached"
        time.sleep(0.02)


class Worker:
    """One worker in a folder of its own, and short ways to ask it."""

    def __init__(self, folder, **conf):
        self.folder = folder
        self.conf = WorkerConf(**{"dir": str(folder), "idle_seconds": 20.0, **conf})
        self.client = connect(self.conf)
        self.rendezvous = Rendezvous(folder, worker_key(self.conf.gpus))
        self.calls_dir = folder / "calls"
        self.calls_dir.mkdir(exist_ok=True)

    def model(self, **args):
        return ModelRef(engine="stub", args={"calls_dir": str(self.calls_dir), **args})

    def exchange(self, call=None, *, execution="1", pool="default", model=None, terms=DEFAULT_TERMS, **args):
        return self.client.exchange(call or Call("c", "p"), model or self.model(**args), "app", execution, pool, terms)

    def asked(self):
        """Prompts that reached an engine."""
        return [line for file in self.calls_dir.glob("*.calls") for line in file.read_text().splitlines()]

    def in_flight(self):
        """Requests at engines; a stream's request may still be on its way to the front."""
        return sum(model["in_flight"] for model in self.client.stats()["models"])

    def pids(self):
        stats = self.client.stats()
        return [stats["pid"], *(model["pid"] for model in stats["models"] if "pid" in model)]


def requests(call, texts, first=0, identities=False):
    """One request per text; equal texts get equal identities where asked for."""
    return [
        Request(first + i, call, (text,), text.encode().ljust(32)[:32] if identities else None)
        for i, text in enumerate(texts)
    ]


def drain(exchange, count, seconds=60.0):
    """Poll until `count` rows have finished; rows by request id, each of them once."""
    rows = []
    deadline = time.monotonic() + seconds
    while len(rows) < count:
        rows += exchange.poll(1.0)
        assert time.monotonic() < deadline, f"{len(rows)} of {count} rows came back"
    by_id = {row.request_id: row for row in rows}
    assert len(by_id) == len(rows) == count
    return by_id


def failure_of(action):
    """The EngineFailure that `action` raises."""
    with pytest.raises(EngineFailure) as caught:
        action()
    return caught.value
