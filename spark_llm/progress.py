"""A line on the terminal that shows what the host's engine worker is doing."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self, TextIO

import pyarrow as pa

from spark_llm.serving.worker.ensure import act, find
from spark_llm.serving.worker.rendezvous import Endpoint, Rendezvous, WorkerConf, worker_folder, worker_key

Counters = dict[str, int]
TERMINAL_SECONDS, LOG_SECONDS = 0.5, 5.0
CLEAR = "\r\x1b[2K"
"""Clears the line on which a terminal's cursor stands."""
BAR = 20
"""Characters of the bar."""


class Progress:
    """Within the block, show rows, tokens per second and the share of prompt tokens served from the cache.

    They are those of the queries that run; the bar shows how many of the rows that they have asked are answered. On a
    terminal one line is rewritten while rows wait; elsewhere a line is written every few seconds while it changes. Only
    looks for a running worker, never starts one.
    """

    def __init__(self, conf: WorkerConf, out: TextIO = sys.stderr) -> None:
        self._rendezvous = Rendezvous(worker_folder(conf.dir), worker_key(conf.gpus))
        self._endpoint: Endpoint | None = None
        self._rows: dict[str, int] = {}  # that each query had at the last look
        self._out = out
        self._terminal = out.isatty()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._shown = ""

    def _watch(self) -> None:
        last: tuple[float, Counters] | None = None
        while not self._stop.wait(TERMINAL_SECONDS if self._terminal else LOG_SECONDS):
            if (counters := self._read()) is not None:
                waits = counters["asked"] > (counters["rows"] if self._terminal else 0)
                self._show(progress_line(last, counters) if waits else "")
                last = (time.monotonic(), counters)

    def _read(self) -> Counters | None:
        """Counters of the queries that run, or did since the last look; None while there is no worker."""
        try:
            self._endpoint = self._endpoint or find(self._rendezvous)
            stats = self._endpoint and json.loads(act(self._endpoint, "stats"))
        except (pa.ArrowException, OSError):
            self._endpoint = stats = None
        if not stats:
            return None
        counters = sum_clients(stats["clients"], self._rows)
        self._rows = {client["client"]: client["rows"] for client in stats["clients"]}
        return counters

    def _show(self, line: str) -> None:
        if line == self._shown:
            return
        self._out.write(f"{CLEAR}{line}" if self._terminal else f"{line}\n")
        self._out.flush()
        self._shown = line

    def __enter__(self) -> Self:
        self._read()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._terminal and self._shown:
            self._out.write(CLEAR)


def sum_clients(clients: list[dict[str, Any]], rows: Mapping[str, int]) -> Counters:
    """Counters of the clients that have streams, or more rows than before, together; `spent`: tokens of all clients."""
    names = ("rows", "queued", "running", "prompt", "cached", "output", "errors")
    active = [client for client in clients if client["streams"] or client["rows"] > rows.get(client["client"], 0)]
    counters = {name: sum(client[name] for client in active) for name in names}
    spent = sum(client["prompt"] + client["output"] for client in clients)
    return {"asked": counters["rows"] + counters.pop("queued") + counters.pop("running"), **counters, "spent": spent}


def progress_line(last: tuple[float, Counters] | None, now: Counters) -> str:
    """What to show, given the counters a moment ago.

    Examples
    --------
    >>> now = {"asked": 80, "rows": 40, "prompt": 1000, "cached": 800, "output": 60, "spent": 1060, "errors": 0}
    >>> progress_line(None, now)
    'llm [##########----------] 40 of 80 rows, 80 % of the prompt tokens from the cache'
    """
    full = BAR * now["rows"] // max(1, now["asked"])
    share = round(100 * now["cached"] / max(1, now["prompt"]))
    line = f"llm [{'#' * full}{'-' * (BAR - full)}] {now['rows']:,} of {now['asked']:,} rows"
    if last is not None and (seconds := time.monotonic() - last[0]) > 0:
        line += f", {round(max(0, now['spent'] - last[1]['spent']) / seconds):,} tokens/s"
    line += f", {share} % of the prompt tokens from the cache"
    return line + (f", {now['errors']:,} errors" if now["errors"] else "")
