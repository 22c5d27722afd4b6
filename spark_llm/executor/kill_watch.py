"""Ends Spark's Python worker as soon as its task is killed, so that the engine stops computing for it."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from spark_llm.serving.worker.leases import file_name

FOLDER = "killed"
LOOK_SECONDS = 0.1


class KillWatch:
    """Within the block, a thread looks for the file by which `KilledTasks.scala` says that a task was killed.

    It then ends this process, as Spark does seconds later: the worker's front sees the stream end and cancels its rows.
    The main thread need not be running Python code for that.
    """

    def __init__(self, folder: Path, application: str, task: int) -> None:
        self._sign = folder / FOLDER / f"{file_name(application)}-{task}"
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            if self._sign.exists():
                os._exit(1)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
