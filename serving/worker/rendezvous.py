"""How clients and the front find each other: a private folder, one file per worker, and a lock for starting.

A worker's key is the version of package and protocol and the GPUs it may use: others get a worker of their own.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import signal
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path

from spark_llm.serving.core import EngineFailure
from spark_llm.serving.protocol import PROTOCOL

FOLDER_VARIABLE = "SPARK_LLM_WORKER_DIR"
"""Environment variable by which a replica knows the worker's folder."""


@dataclass(frozen=True, slots=True)
class WorkerConf:
    """How to find, start and bound the host's worker; the first client's settings start it.

    Parameters
    ----------
    dir : str
        Private folder of the worker; '' for the user's default.
    idle_seconds, start_seconds, hang_seconds : float
        Life without leases and streams; wait for a front, and for a model, to be ready; silence of a model at work.
    inflight_bytes, queue_bytes : int
        Prompt bytes in flight per stream, and of all streams.
    memo_bytes, memo_total_bytes : int
        Bytes of answers remembered per client, and for all clients.
    memory_bytes, models : int
        Memory of front and models together, 0 for a share of the host's; models loaded at once, 0 for as many as fit.
    metrics_port : int
        Loopback port of the metrics, 0 for none.
    log_prompts : bool
        Write prompts and answers to a file of the folder.
    python : str
        Interpreter of the front; '' for this one.
    gpus : str
        `CUDA_VISIBLE_DEVICES` of the engines.
    """

    dir: str = ""
    idle_seconds: float = 60.0
    start_seconds: float = 120.0
    hang_seconds: float = 300.0
    inflight_bytes: int = 64 << 20
    queue_bytes: int = 512 << 20
    memo_bytes: int = 256 << 20
    memo_total_bytes: int = 1 << 30
    memory_bytes: int = 0
    models: int = 0
    metrics_port: int = 0
    log_prompts: bool = False
    python: str = ""
    gpus: str = field(default_factory=lambda: os.environ.get("CUDA_VISIBLE_DEVICES", ""))


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a running front listens, and the token that every call needs."""

    pid: int
    location: str
    token: str


def worker_folder(configured: str) -> Path:
    """The worker's private folder, created if need be; raises EngineFailure when others could write to it."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    user_folder = Path(tempfile.gettempdir()) / f"spark-llm-{os.getuid()}"
    folder = Path(configured) if configured else Path(runtime) / "spark-llm" if runtime else user_folder
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
    except OSError as problem:
        raise _unusable(folder, detail=problem.strerror or "unusable") from problem
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise _unusable(folder, detail="it must be a folder of this user that nobody else can enter (mode 700)")
    return folder.absolute()


def _unusable(folder: Path, detail: str) -> EngineFailure:
    message = f"the engine worker did not start on this host: its folder '{folder}' is not usable: {detail}."
    remedy = "Correct the folder, or set spark.llm.worker.dir to another one."
    return EngineFailure(condition="LLM_WORKER_START", message=message, remedy=remedy)


def worker_key(gpus: str) -> str:
    """Names the worker among those of one folder."""
    try:
        version = metadata.version("spark-llm")
    except metadata.PackageNotFoundError:
        version = "source"
    return hashlib.sha256(f"{version} {PROTOCOL} {gpus}".encode()).hexdigest()[:8]


class Rendezvous:
    """The files of one worker in its folder."""

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key = folder, key
        self.file = folder / f"worker-{key}.json"
        self.socket = folder / f"worker-{key}.sock"
        self.log = folder / f"worker-{key}.log"
        self._lock = folder / f"worker-{key}.lock"

    def read(self) -> Endpoint | None:
        """The published endpoint, if its process is alive."""
        try:
            endpoint = Endpoint(**json.loads(self.file.read_text()))
            os.kill(endpoint.pid, 0)
        except (OSError, ValueError, TypeError):
            return None
        return endpoint

    def publish(self, endpoint: Endpoint) -> None:
        """Make the front findable; the file appears whole or not at all."""
        part = self.file.with_suffix(".part")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(asdict(endpoint), file)
        part.replace(self.file)

    def withdraw(self, pid: int) -> None:
        """Remove the files of the front `pid`, and those of no other."""
        if self.owner() in {pid, None}:
            self.file.unlink(missing_ok=True)
            self.socket.unlink(missing_ok=True)

    def end_silent(self) -> None:
        """Kill the published front, which does not answer: it would hold the memory that its successor needs."""
        pid = self.owner()
        with contextlib.suppress(OSError):
            if pid is not None and b"spark_llm.serving.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)

    def owner(self) -> int | None:
        """Process id in the published file, alive or not."""
        try:
            return int(json.loads(self.file.read_text())["pid"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @contextlib.contextmanager
    def starting(self) -> Iterator[None]:
        """Hold the lock of the one who starts the worker; waits for another starter."""
        descriptor = self._locked()
        try:
            yield
        finally:
            self._lock.unlink(missing_ok=True)
            os.close(descriptor)

    def _locked(self) -> int:
        # The holder removes the file, so a lock counts only if its file is still the one in the folder.
        while True:
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if self._lock.stat().st_ino == os.fstat(descriptor).st_ino:
                    return descriptor
            os.close(descriptor)
