"""Find this host's worker, or start it: `python -m spark_llm.serving.worker.ensure --dir D`."""

from __future__ import annotations

import argparse
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import IO, Any

import pyarrow as pa
from pyarrow import flight
from spark_llm.serving.core import EngineFailure
from spark_llm.serving.worker import leases
from spark_llm.serving.worker.rendezvous import Endpoint, Rendezvous, WorkerConf, worker_folder, worker_key

PING_SECONDS = 10.0


def connect(endpoint: Endpoint) -> flight.FlightClient:
    """A Flight client of the front; never through a proxy."""
    return flight.FlightClient(endpoint.location, generic_options=[("grpc.enable_http_proxy", 0)])


def call_options(endpoint: Endpoint, timeout: float | None = None) -> flight.FlightCallOptions:
    """The token, which every call carries."""
    headers = [(b"authorization", f"Bearer {endpoint.token}".encode())]
    return flight.FlightCallOptions(timeout=timeout, headers=headers)


def act(endpoint: Endpoint, action: str) -> bytes:
    """Do one action of the front: `ping`, `stats` or `shutdown`; the body of its answer."""
    with connect(endpoint) as client:
        results = client.do_action(flight.Action(action, b""), call_options(endpoint, PING_SECONDS))
        return b"".join(result.body.to_pybytes() for result in results)


def find(rendezvous: Rendezvous) -> Endpoint | None:
    """The published front, if it answers."""
    endpoint = rendezvous.read()
    return endpoint if endpoint is not None and answers(endpoint) else None


def answers(endpoint: Endpoint) -> bool:
    """Whether the front can be reached and does not hang."""
    try:
        act(endpoint, "ping")
    except (pa.ArrowException, OSError):
        return False
    return True


def ensure(conf: WorkerConf) -> Endpoint:
    """Find the host's front, or start it; of several starters one starts it and the others find it.

    Raises
    ------
    EngineFailure
        `LLM_WORKER_START` where it cannot be started.
    """
    rendezvous = Rendezvous(worker_folder(conf.dir), worker_key(conf.gpus))
    if (endpoint := find(rendezvous)) is not None:
        return endpoint
    with rendezvous.starting():
        if (endpoint := find(rendezvous)) is not None:
            return endpoint
        rendezvous.end_silent()
        _start(conf, rendezvous)
        endpoint = rendezvous.read()
    if endpoint is None:
        raise _not_started(rendezvous, detail="it ended at once")
    return endpoint


def _start(conf: WorkerConf, rendezvous: Rendezvous) -> None:
    python = conf.python or sys.executable
    command = [python, "-m", "spark_llm.serving.worker", str(rendezvous.folder), json.dumps(asdict(conf))]
    descriptor = os.open(rendezvous.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "ab") as log:
        try:
            starter = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, cwd=rendezvous.folder
            )
        except OSError as problem:
            detail = f"Python '{python}' does not run: {problem.strerror}"
            raise _not_started(rendezvous, detail) from problem
    with starter:
        assert starter.stdout is not None
        if not _says_ready(starter.stdout, conf.start_seconds):
            raise _not_started(rendezvous, detail=f"it was not ready within {conf.start_seconds:g} seconds, or ended")


def _says_ready(output: IO[bytes], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    readable, _, _ = select.select([output], [], [], max(0.0, deadline - time.monotonic()))
    return bool(readable) and os.read(output.fileno(), 16).startswith(b"ready")


def _not_started(rendezvous: Rendezvous, detail: str) -> EngineFailure:
    message = f"the engine worker did not start on this host: {detail}."
    return EngineFailure(condition="LLM_WORKER_START", message=message, remedy=f"Read its log at {rendezvous.log}.")


def read_options(options: Sequence[str] | None = None) -> tuple[WorkerConf, str | None]:
    """Each field of `WorkerConf` as an option, and the application; from the command line where none are given."""
    parser = argparse.ArgumentParser(description=__doc__)
    for setting in fields(WorkerConf):
        kind: Any = {"float": float, "int": int, "bool": _is_true}.get(str(setting.type), str)
        parser.add_argument(f"--{setting.name.replace('_', '-')}", type=kind, default=argparse.SUPPRESS)
    parser.add_argument("--application", help="also take the lease of this application")
    arguments = vars(parser.parse_args(options))
    application = arguments.pop("application")
    return WorkerConf(**arguments), application


def _is_true(text: str) -> bool:
    return text.lower() == "true"


def main() -> None:
    """Command line of Spark's executor plugin: prints the worker's process id and location as JSON."""
    conf, application = read_options()
    try:
        endpoint = ensure(conf)
    except EngineFailure as failure:
        sys.exit(f"[{failure.condition}] {failure.message}\n\n{failure.remedy}")
    if application:
        leases.touch(worker_folder(conf.dir), application)
    print(json.dumps({"pid": endpoint.pid, "location": endpoint.location}))


if __name__ == "__main__":
    main()
