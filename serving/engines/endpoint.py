"""Any server that speaks OpenAI's HTTP interface (vLLM, SGLang, hosted ones) behind the `Engine` interface.

One process serves all tasks of the host, so its queue is the place where queries share the server fairly.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import hashlib
import json
import os
import queue
import threading
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import httpx
from spark_llm.serving.core import Capacity, EngineFailure, Finished, ModelRef, Request
from spark_llm.serving.endpoint.asker import (
    Asker,
    Response,
    describe,
    fatal_refusal,
    http_client,
    read_response,
    unknown_model,
)
from spark_llm.serving.endpoint.dialect import Dialect, estimated_tokens
from spark_llm.serving.endpoint.pace import backoff
from spark_llm.serving.endpoint.refusal import read_refusal
from spark_llm.serving.endpoint.settings import EndpointSettings, failure
from spark_llm.serving.price import Price
from spark_llm.serving.scheduler.policies import create_policy
from spark_llm.serving.worker.rendezvous import FOLDER_VARIABLE, worker_folder

KV_TOKENS, MAX_LENGTH = 1 << 20, 1 << 17
"""What is assumed of a server that does not tell."""
STEP_SECONDS = 0.02
START_ATTEMPTS = 3
LISTED = 10
KEY_LENGTH = 512

Value = TypeVar("Value")
Answering = concurrent.futures.Future[Finished]


class EndpointEngine:
    """A model served elsewhere.

    Parameters
    ----------
    model : ModelRef
        `name` as the server knows it; `default` for the only one it serves. `args`: `EndpointSettings`.

    Raises
    ------
    EngineFailure
        For unusable settings, a server that cannot be reached or is none, a refused key, an unknown model.
    """

    def __init__(self, model: ModelRef) -> None:
        self._settings = EndpointSettings.from_args(model.args)
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._client = http_client(self._settings)
        served = self._wait(_find_model(self._settings, self._client, model.name))
        name = str(served["id"])
        identity = hashlib.sha256(f"{self._settings.url}\0{name}".encode()).hexdigest()
        length = served.get("max_model_len")
        length = length if isinstance(length, int) and length > 0 else MAX_LENGTH
        self._capacity = Capacity(KV_TOKENS, length, self._settings.concurrency, identity)
        dialect = Dialect(self._settings, name, str(served.get("owned_by", "")))
        self._asker = Asker(self._settings, self._client, dialect, _limits_folder(self._settings.url))
        self._policy = create_policy(self._settings.policy)
        self._waiting: dict[int, Request] = {}
        self._running: dict[int, tuple[Request, Answering]] = {}
        self._done: queue.SimpleQueue[tuple[int, Answering]] = queue.SimpleQueue()
        self._stats = dict.fromkeys(("steps", "prompt_tokens", "cached_tokens", "output_tokens"), 0)
        self._price, self._cost = Price.of(model.args), 0.0

    def submit(self, requests: Sequence[Request]) -> None:
        for request in requests:
            self._waiting[request.request_id] = request
            self._policy.add(request.request_id, request.client, _sort_key(request))

    def has_work(self) -> bool:
        return bool(self._running or self._waiting)

    def step(self) -> list[Finished]:
        self._stats["steps"] += 1
        self._start_requests()
        finished = []
        try:
            entry = self._done.get(timeout=STEP_SECONDS)
            while True:
                finished += self._finish(*entry)
                entry = self._done.get_nowait()
        except queue.Empty:
            return finished

    def cancel(self, request_ids: Sequence[int]) -> None:
        for request_id in request_ids:
            if self._waiting.pop(request_id, None) is not None:
                self._policy.remove(request_id)
            elif (running := self._running.pop(request_id, None)) is not None:
                self._policy.finish(request_id)
                running[1].cancel()  # closes its connection, by which servers notice

    def capacity(self) -> Capacity:
        return self._capacity

    def stats(self) -> Mapping[str, float]:
        """Also `requests` (attempts sent), `retries`, `throttled`, `unusable`, `window` and, where priced, `cost`."""
        asker = self._asker
        counts = {name: asker.counts[name] for name in ("requests", "retries", "throttled", "unusable")}
        own = {
            "running": len(self._running),
            "waiting": len(self._waiting),
            "window": asker.pace.window,
            "cost": self._cost,
        }
        return {**self._stats, **own, **counts}

    def running(self) -> Mapping[str, int]:
        return Counter(request.client.name for request, _ in self._running.values())

    def close(self) -> None:
        self.cancel([*self._running, *self._waiting])
        self._wait(self._client.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _start_requests(self) -> None:
        self._policy.refresh()
        while len(self._running) < int(self._asker.pace.window) and (request_id := self._policy.next()) is not None:
            request = self._waiting.pop(request_id)
            self._policy.admit(request_id, reserved=estimated_tokens(request))
            answering = asyncio.run_coroutine_threadsafe(self._asker.answer(request), self._loop)
            self._running[request_id] = request, answering
            answering.add_done_callback(partial(self._put, request_id))

    def _put(self, request_id: int, answering: Answering) -> None:
        self._done.put((request_id, answering))

    def _finish(self, request_id: int, answering: Answering) -> list[Finished]:
        request, current = self._running.get(request_id, (None, None))
        if request is None or current is not answering:
            return []  # cancelled
        del self._running[request_id]
        row = answering.result()
        self._policy.serve(request_id, row.usage.prompt - row.usage.cached, row.usage.output)
        self._policy.finish(request_id)
        self._cost += self._price.cost(row.usage)
        for name in ("prompt", "cached", "output"):
            self._stats[f"{name}_tokens"] += getattr(row.usage, name)
        return [row]

    def _wait(self, work: Coroutine[Any, Any, Value]) -> Value:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def _sort_key(request: Request) -> bytes:
    """By which rows that share a prefix stand together: servers cache prefixes too."""
    return f"{request.call.call_id}\0{''.join(request.segments)[:KEY_LENGTH]}".encode()


def _limits_folder(url: str) -> Path:
    folder = worker_folder(os.environ.get(FOLDER_VARIABLE, ""))
    return folder / "endpoints" / hashlib.sha256(url.encode()).hexdigest()[:16]


async def _find_model(settings: EndpointSettings, client: httpx.AsyncClient, name: str) -> dict[str, Any]:
    """The server's entry of the model `name`; made up where the server has no list of models."""
    response = await _get(settings, client, settings.url + "/models")
    fatal = read_refusal(response.status, response.headers, response.body)
    if response.status in (401, 402, 403):
        fatal_refusal(settings, fatal, name)
    entries = _entries(response) if response.status == 200 else None
    if entries is None:
        if response.status == 200 or await _has_models(settings, client, settings.url + "/v1/models"):
            hint = "it has no list of models there" + (
                "" if response.status == 200 else f"; did you mean '{settings.url}/v1'"
            )
            raise failure("LLM_ENDPOINT_URL", url=settings.url, detail=hint)
        if name == "default":
            raise unknown_model(settings, name, "it has no list of models to choose from")
        return {"id": name}
    names = [str(entry["id"]) for entry in entries]
    if name == "default" and len(names) == 1:
        return entries[0]
    for entry in entries:
        if entry["id"] == name:
            return entry
    if name == "default" or (entries[:1] and entries[0].get("owned_by") in ("vllm", "sglang")):
        more = ", …" if len(names) > LISTED else ""
        raise unknown_model(settings, name, f"served: {', '.join(names[:LISTED])}{more}")
    return {"id": name}  # hosted servers do not list every model


async def _get(settings: EndpointSettings, client: httpx.AsyncClient, url: str) -> Response:
    attempt = 0
    while True:
        try:
            async with asyncio.timeout(settings.connect_seconds + settings.read_seconds):
                response = await read_response(client, "GET", url)
            if response.status < 500 or response.status == 501:
                return response
            detail = f"HTTP {response.status}"
        except (httpx.HTTPError, TimeoutError) as problem:
            detail = describe(problem)
        attempt += 1
        if attempt == START_ATTEMPTS:
            raise failure("LLM_ENDPOINT_URL", url=settings.url, detail=detail)
        await asyncio.sleep(backoff(attempt))


async def _has_models(settings: EndpointSettings, client: httpx.AsyncClient, url: str) -> bool:
    try:
        response = await _get(settings, client, url)
    except EngineFailure:
        return False
    return response.status == 200 and _entries(response) is not None


def _entries(response: Response) -> list[dict[str, Any]] | None:
    """The models of a list, or None where the body is none."""
    try:
        entries = json.loads(response.body)["data"]
    except (ValueError, KeyError, TypeError):
        return None
    if not isinstance(entries, list):
        return None
    return [entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)]
