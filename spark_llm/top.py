"""`spark-llm top`: models and queries of this host's engine workers, live on the terminal."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TextIO

import pyarrow as pa

from spark_llm.serving.worker.ensure import act
from spark_llm.serving.worker.rendezvous import Rendezvous, worker_folder

Row = Mapping[str, Any]
CLEAR = "\x1b[H\x1b[2J"
ENDED_SHOWN = 5
"""Queries without an open stream that are still listed, the latest first."""


def read_workers(folder: str) -> Iterator[dict[str, Any]]:
    """The counters of every worker in the folder; ones that do not answer are left out."""
    root = worker_folder(folder)
    for file in sorted(root.glob("worker-*.json")):
        endpoint = Rendezvous(root, file.stem.removeprefix("worker-")).read()
        if endpoint is None:
            continue
        try:
            yield json.loads(act(endpoint, "stats"))
        except (pa.ArrowException, OSError):
            continue


def run_top(folder: str, *, once: bool, as_json: bool, interval: float, out: TextIO | None = None) -> int:
    """Print the workers' state once, or again and again until interrupted; the exit status.

    Without a worker, `--once` prints so and ends with status 1.
    """
    out = out or sys.stdout
    before: dict[str, Any] = {}
    while True:
        workers = list(read_workers(folder))
        if as_json:
            out.writelines(json.dumps(worker) + "\n" for worker in workers)
        else:
            text = "\n\n".join(table(worker, before.get(worker["pid"])) for worker in workers)
            out.write(("" if once else CLEAR) + (text or "no engine worker runs on this host") + "\n")
        out.flush()
        if once:
            return 0 if workers else 1
        before = {worker["pid"]: {**worker, "read": time.monotonic()} for worker in workers}
        try:
            time.sleep(max(0.1, interval))
        except KeyboardInterrupt:
            return 0


def table(worker: Row, before: Row | None = None) -> str:
    """One worker as text; rates are shown where an earlier state is given.

    Examples
    --------
    >>> print(table({"pid": 7, "memory": {"used": 3 << 30, "limit": 8 << 30}, "models": [], "clients": []}))
    worker 7: 0 models, 0 queries, 3.0 of 8.0 GiB
    """
    memory, models = worker["memory"], worker["models"]
    clients = _shown(worker["clients"])
    loaded = sum(model["state"] != "stopped" for model in models)
    head = f"worker {worker['pid']}: {_plural(loaded, 'model')}, {_plural(_active(clients), 'query', 'queries')}"
    head += f", {memory['used'] / (1 << 30):.1f} of {memory['limit'] / (1 << 30):.1f} GiB"
    earlier = {client["client"]: client for client in before["clients"]} if before else {}
    seconds = time.monotonic() - before["read"] if before else 0.0
    rates = [_rate(client, earlier.get(client["client"]), seconds) for client in clients]
    parts = [
        head,
        _columns(MODEL_COLUMNS, models),
        _columns(CLIENT_COLUMNS, [{**c, "rate": r} for c, r in zip(clients, rates, strict=True)]),
    ]
    return "\n\n".join(part for part in parts if part)


def _shown(clients: Sequence[Row]) -> list[Row]:
    """Queries with open streams, most tokens first, then a few that have ended."""
    ordered = sorted(clients, key=lambda client: (-client["streams"], -client["last_seen"]))
    active = _active(ordered)
    return [*sorted(ordered[:active], key=lambda c: -_tokens(c)), *ordered[active : active + ENDED_SHOWN]]


def _active(clients: Sequence[Row]) -> int:
    return sum(client["streams"] > 0 for client in clients)


def _tokens(client: Row) -> int:
    return client["prompt"] + client["output"]


def _rate(client: Row, earlier: Row | None, seconds: float) -> str:
    return f"{(_tokens(client) - _tokens(earlier)) / seconds:,.0f}" if earlier and seconds > 0 else ""


def _plural(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else ""


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value else ""


def _name(model: Row) -> str:
    return model["model"].rstrip("/").rpartition("/")[2]


def _cached(model: Row) -> str:
    counters = model.get("counters") or {}
    return _share(counters.get("cached_tokens", 0), counters.get("prompt_tokens", 0))


MODEL_COLUMNS: dict[str, Callable[[Row], str]] = {
    "MODEL": _name,
    "ENGINE": lambda model: model["engine"],
    "STATE": lambda model: model["state"],
    "MIB": lambda model: f"{model['memory'] / (1 << 20):,.0f}",
    "STREAMS": lambda model: str(model["streams"]),
    "IN FLIGHT": lambda model: f"{model['in_flight'] + model['held']:,}",
    "CACHED": _cached,
}
CLIENT_COLUMNS: dict[str, Callable[[Row], str]] = {
    "QUERY": lambda client: client["client"],
    "POOL": lambda client: client["pool"],
    "QUEUED": lambda client: f"{client['queued']:,}",
    "RUNNING": lambda client: f"{client['running']:,}",
    "ROWS": lambda client: f"{client['rows']:,}",
    "CALLS": lambda client: f"{client['calls']:,}",
    "TOKENS": lambda client: f"{_tokens(client):,}",
    "TOKENS/S": lambda client: client["rate"],
    "CACHED": lambda client: _share(client["cached"], client["prompt"]),
    "WAIT": lambda client: _seconds(client["mean_wait"]),
    "OLDEST": lambda client: _seconds(client["oldest_wait"]),
    "ERRORS": lambda client: f"{client['errors']:,}" if client["errors"] else "",
    "COST": lambda client: f"{client['cost']:.4f}" if client["cost"] else "",
}


def _columns(columns: Mapping[str, Callable[[Row], str]], rows: Sequence[Row]) -> str:
    """Rows under headings, columns without content left out; texts to the left, numbers to the right."""
    if not rows:
        return ""
    cells = {name: [cell(row) for row in rows] for name, cell in columns.items()}
    parts = []
    for name, column in cells.items():
        if any(column):
            width = max(map(len, [name, *column]))
            left = not any(text[:1].isdigit() for text in column)
            parts.append([text.ljust(width) if left else text.rjust(width) for text in [name, *column]])
    return "\n".join("  ".join(line).rstrip() for line in zip(*parts, strict=True))
