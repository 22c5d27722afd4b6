"""Writes a task's answers to the log while it asks."""

from __future__ import annotations

import secrets
import sys
import threading
import time

import pyarrow as pa
from pyarrow import fs

from spark_llm.errors import LlmError
from spark_llm.result_log.batches import make_batch, to_bytes
from spark_llm.result_log.files import LogFile, list_folder, put, remove_replaced

BATCH_ANSWERS, BATCH_SECONDS = 256, 5.0
"""An answer waits for so many others, or so long; so many of a task can be lost at most."""
MERGED_FILES, MERGED_BYTES = 64, 16 << 20
"""So many batches, or bytes, become one larger file."""
ATTEMPTS, PAUSE_SECONDS = 3, 0.5


class AnswerWriter:
    """Appends answers to a call's folder from a thread of its own.

    A batch is a file as soon as it is full or `BATCH_SECONDS` old; `MERGED_FILES` of them are then written once more as
    one, which replaces them by its name. Where the storage fails, the query goes on without a log and says so.

    Parameters
    ----------
    system, folder
        Where the call's answers lie.
    partition : int
        The task's partition, by which another attempt of the same task finds these files.
    call : str
        What was asked, in words.
    """

    def __init__(self, system: fs.FileSystem, folder: str, partition: int, call: str) -> None:
        self._system, self._folder, self._partition, self._call = system, folder, partition, call
        self._name = secrets.token_hex(8)
        self._changed = threading.Condition()
        self._held: list[tuple[bytes, str]] = []
        self._writing = 0
        self._since = 0.0
        self._ended = self._failed = False
        self._batches = 0
        self._small: list[pa.Table] = []
        self._thread: threading.Thread | None = None

    def add(self, identity: bytes, answer: str) -> None:
        """Take an answer; waits while `BATCH_ANSWERS` are held or being written."""
        if self._failed:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="spark-llm result log", daemon=True)
            self._thread.start()
        with self._changed:
            self._changed.wait_for(lambda: len(self._held) + self._writing < BATCH_ANSWERS or self._failed)
            self._held.append((identity, answer))
            if len(self._held) == 1:
                self._since = time.monotonic()
            if len(self._held) in (1, BATCH_ANSWERS):
                self._changed.notify_all()

    def close(self) -> None:
        """Write what is left, and wait until it is durable."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            while batch := self._next():
                self._write(make_batch(batch, time.time()))
                with self._changed:
                    self._writing = 0
                    self._changed.notify_all()
            self._merge()
            if self._batches > 1:
                remove_replaced(self._system, list_folder(self._system, self._folder))
        except (OSError, pa.ArrowException) as problem:
            self._give_up(problem)

    def _next(self) -> list[tuple[bytes, str]]:
        """The next batch; empty at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._held or self._ended)
            self._changed.wait_for(
                lambda: len(self._held) >= BATCH_ANSWERS or self._ended,
                timeout=max(0.0, self._since + BATCH_SECONDS - time.monotonic()),
            )
            batch, self._held = self._held[:BATCH_ANSWERS], self._held[BATCH_ANSWERS:]
            self._writing = len(batch)
            return batch

    def _write(self, batch: pa.Table) -> None:
        self._put(batch, self._batches, self._batches)
        self._batches += 1
        self._small.append(batch)
        if len(self._small) >= MERGED_FILES or sum(table.nbytes for table in self._small) >= MERGED_BYTES:
            self._merge()

    def _merge(self) -> None:
        if len(self._small) > 1:
            self._put(pa.concat_tables(self._small), self._batches - len(self._small), self._batches - 1)
        self._small = []

    def _put(self, table: pa.Table, first: int, last: int) -> None:
        data = to_bytes(table, self._call)
        file = LogFile(self._partition, self._name, first, last, table.num_rows, data.size)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return put(self._system, f"{self._folder}/{file.name}", data)
            except OSError:
                if attempt == ATTEMPTS:
                    raise
                time.sleep(attempt * PAUSE_SECONDS)

    def _give_up(self, problem: Exception) -> None:
        with self._changed:
            self._failed = True
            self._held = []
            self._changed.notify_all()
        print(LlmError("LLM_RESULT_LOG", detail=f"writing failed ({type(problem).__name__})"), file=sys.stderr)
