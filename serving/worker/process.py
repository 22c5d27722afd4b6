"""The front's handle on one replica process."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
from spark_llm.serving.core import EngineFailure, ModelRef
from spark_llm.serving.worker.frames import Channel
from spark_llm.serving.worker.package import link_package
from spark_llm.serving.worker.rendezvous import FOLDER_VARIABLE

CLOSE_SECONDS = 5.0


class ReplicaProcess:
    """Starts the process and reads its frames in a thread.

    Parameters
    ----------
    folder : Path
        The worker's folder; `log` in it receives the process's output.
    on_frame, on_exit : callable
        Called in the reading thread: with this handle, head and body of each frame; with this handle at the end.
    """

    def __init__(
        self,
        model: ModelRef,
        folder: Path,
        log: Path,
        gpus: str,
        on_frame: Callable[[ReplicaProcess, dict[str, Any], pa.Buffer], None],
        on_exit: Callable[[ReplicaProcess], None],
    ) -> None:
        self.started = self.heard = time.monotonic()
        self.capacity: dict[str, Any] | None = None
        self.stats: dict[str, float] = {}
        self.running: dict[str, int] = {}
        self._on_frame, self._on_exit = on_frame, on_exit
        ours, theirs = socket.socketpair()
        with theirs, log.open("ab") as output:
            self._process = _spawn(model, theirs.fileno(), folder, output.fileno(), gpus)
        self._mark = log.with_suffix(f".{self.pid}.pid")
        self._mark.touch(mode=0o600)
        self.channel = Channel(ours)
        with contextlib.suppress(OSError):  # it has ended already: the reader will notice
            self.channel.send({"op": "load", "model": asdict(model)})
        threading.Thread(target=self._receive, daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _receive(self) -> None:
        try:
            while (frame := self.channel.receive()) is not None:
                self.heard = time.monotonic()
                self._on_frame(self, *frame)
        finally:
            self.close()
            self._on_exit(self)

    def kill(self) -> None:
        """End a process that hangs; `on_exit` follows."""
        self._process.kill()

    def close(self) -> None:
        """End the process: it ends by itself when its socket closes, and is killed when it does not."""
        self.channel.close()
        try:
            self._process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._mark.unlink(missing_ok=True)


def end_orphans(log: Path) -> None:
    """End the replicas of a front that was killed, where they hang: the others ended when their socket closed."""
    for mark in log.parent.glob(f"{log.stem}.*.pid"):
        with contextlib.suppress(OSError):
            pid = int(mark.suffixes[-2][1:])
            if b"spark_llm.serving.worker.replica" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
        mark.unlink(missing_ok=True)


def _spawn(model: ModelRef, channel: int, folder: Path, log: int, gpus: str) -> subprocess.Popen[bytes]:
    python = model.python or sys.executable
    environment = {**os.environ, FOLDER_VARIABLE: str(folder), **({"CUDA_VISIBLE_DEVICES": gpus} if gpus else {})}
    environment.pop("OMP_NUM_THREADS", None)  # Spark's, for one task: the engine computes for all tasks of the host
    if python != sys.executable:
        environment["PYTHONPATH"] = str(link_package(folder / f"python-{model.key}"))
    command = [python, "-m", "spark_llm.serving.worker.replica", str(channel)]
    try:
        return subprocess.Popen(
            command,
            pass_fds=[channel],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            cwd=folder,
        )
    except OSError as problem:
        message = f"engine '{model.engine}' cannot start: Python '{python}' does not run: {problem.strerror}"
        remedy = "Set spark.llm.python, or spark.llm.engine.vllm.python, to a Python >= 3.11."
        raise EngineFailure(condition="LLM_ENGINE_START", message=message, remedy=remedy) from problem
