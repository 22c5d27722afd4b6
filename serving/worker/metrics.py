"""The worker's counters as Prometheus text, on loopback only."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spark_llm.serving.worker.host import Host

PREFIX = "spark_llm_"
CLIENT_METRICS = {
    "queued": ("client_queued", "gauge", "Requests that wait."),
    "running": ("client_running", "gauge", "Requests that are computed."),
    "rows": ("client_rows_total", "counter", "Rows answered."),
    "calls": ("client_calls_total", "counter", "Rows that the engine was paid for."),
    "prompt": ("client_prompt_tokens_total", "counter", "Prompt tokens served."),
    "cached": ("client_cached_tokens_total", "counter", "Prompt tokens served from a prefix cache."),
    "output": ("client_output_tokens_total", "counter", "Answer tokens served."),
    "errors": ("client_errors_total", "counter", "Rows without an answer."),
    "mean_wait": ("client_wait_seconds_mean", "gauge", "Mean time from question to answer."),
    "oldest_wait": ("client_oldest_wait_seconds", "gauge", "Time that the oldest unanswered request has waited."),
    "cost": ("client_cost_total", "counter", "Price of the tokens served."),
}
MODEL_METRICS = {
    "in_flight": ("model_in_flight", "gauge", "Requests at the model's process."),
    "memory": ("model_memory_bytes", "gauge", "Memory of the model's process."),
    "streams": ("model_streams", "gauge", "Open streams."),
}
MEMORY_METRICS = {
    "used": ("memory_used_bytes", "gauge", "Memory of the worker and its models."),
    "limit": ("memory_limit_bytes", "gauge", "Budget of the worker and its models."),
    "evictions": ("evictions_total", "counter", "Models that made room for others."),
}


def prometheus_text(stats: Mapping[str, Any]) -> str:
    """What `Host.stats` says, in Prometheus' text format 0.0.4."""
    lines = [*_family(MEMORY_METRICS, [({}, stats["memory"])])]
    clients = [({"client": client["client"], "pool": client["pool"]}, client) for client in stats["clients"]]
    models = [({"model": m["model"], "engine": m["engine"], "key": m["key"]}, m) for m in stats["models"]]
    lines += [*_family(CLIENT_METRICS, clients), *_family(MODEL_METRICS, models)]
    names = sorted({name for _, model in models for name in model.get("counters") or {}})
    engine = {name: (f"engine_{name}", "gauge", "Counter of the engine.") for name in names}
    lines += _family(engine, [(labels, model.get("counters") or {}) for labels, model in models])
    return "\n".join(lines) + "\n"


def _family(
    metrics: Mapping[str, tuple[str, str, str]], rows: list[tuple[dict[str, str], Mapping[str, Any]]]
) -> Iterator[str]:
    for field, (name, kind, meaning) in metrics.items():
        samples = [(labels, row[field]) for labels, row in rows if field in row]
        if samples:
            yield f"# HELP {PREFIX}{name} {meaning}"
            yield f"# TYPE {PREFIX}{name} {kind}"
        for labels, value in samples:
            yield f"{PREFIX}{name}{_labels(labels)} {value}"


def _labels(labels: Mapping[str, str]) -> str:
    pairs = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{pairs}}}" if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


class _Handler(BaseHTTPRequestHandler):
    host: Host

    def do_GET(self) -> None:
        if self.path != "/metrics":
            self.send_error(404)
            return
        body = prometheus_text(self.host.stats()).encode()
        self.send_response(200)
        self.send_header("content-type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Scrapes are not worth a line."""


def serve_metrics(host: Host, port: int) -> None:
    """Serve `/metrics` on 127.0.0.1 in a thread, where a port is set and free."""
    if not port:
        return
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), type("Handler", (_Handler,), {"host": host}))
    except (OSError, OverflowError) as problem:
        print(f"no metrics on port {port}: {problem}", file=sys.stderr)
        return
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
