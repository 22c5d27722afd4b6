"""Asks one server: attempts with limits, time-outs and retries, on an event loop."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from spark_llm.serving.core import EngineFailure, Finished, FinishReason, Request, RowError, Usage
from spark_llm.serving.endpoint.answer import FilteredAnswer, UnusableAnswer, check_constraint, read_answer
from spark_llm.serving.endpoint.dialect import Dialect, estimated_tokens
from spark_llm.serving.endpoint.limits import HostRate, HostSlots
from spark_llm.serving.endpoint.pace import Pace, backoff
from spark_llm.serving.endpoint.refusal import Refusal, read_refusal
from spark_llm.serving.endpoint.settings import EndpointSettings, failure, is_loopback

MAX_BODY_BYTES = 16 << 20
SLOT_SECONDS = 0.02
KEY_STATUS = frozenset({401, 403})


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    headers: Mapping[str, str]
    body: bytes


class Again(Exception):
    """An attempt failed in a way that may pass; `counts` says whether towards the row's retries."""

    def __init__(self, detail: str, *, counts: bool = True, usage: Usage | None = None) -> None:
        super().__init__(detail)
        self.detail, self.counts, self.usage = detail, counts, usage or Usage()


class RowFailure(Exception):
    """The row cannot be answered."""

    def __init__(self, condition: str, message: str, usage: Usage | None = None) -> None:
        super().__init__(message)
        self.condition, self.message, self.usage = condition, message, usage or Usage()


def http_client(settings: EndpointSettings) -> httpx.AsyncClient:
    """The client of one server. Proxies of the environment are used, for loopback never; redirects are not followed."""
    key = settings.api_key()
    return httpx.AsyncClient(
        headers={"authorization": f"Bearer {key}"} if key else {},
        timeout=httpx.Timeout(settings.read_seconds, connect=settings.connect_seconds, pool=None),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=settings.concurrency),
        trust_env=not is_loopback(urlsplit(settings.url).hostname or ""),
    )


class Asker:
    """Answers requests of one model at one server. Everything but the constructor runs on one event loop.

    Parameters
    ----------
    folder : Path
        Private folder of this host's limits for the server.
    """

    def __init__(self, settings: EndpointSettings, client: httpx.AsyncClient, dialect: Dialect, folder: Path) -> None:
        self._settings, self._client, self._dialect = settings, client, dialect
        self._slots = HostSlots(folder, settings.concurrency)
        self._requests = HostRate(folder / "requests", settings.requests_per_minute)
        self._tokens = HostRate(folder / "tokens", settings.tokens_per_minute)
        self.pace = Pace(settings)
        self.counts: Counter[str] = Counter()

    async def answer(self, request: Request) -> Finished:
        """The end of a request; raises EngineFailure for what concerns all of them."""
        attempts, spent = 0, Usage()
        while True:
            try:
                text, reason, usage = await self._attempt(request)
                return Finished(request.request_id, text, reason, _sum(spent, usage))
            except Again as again:
                attempts += again.counts
                spent = _sum(spent, again.usage)
                if attempts > self._settings.retries:
                    message = f"the server failed {attempts} times, last with: {again.detail}."
                    error = RowError("LLM_ROW_FAILED", f"the engine could not answer this row: {message}", attempts)
                    return Finished(request.request_id, None, "error", spent, error)
                self.counts["retries"] += 1
                await asyncio.sleep(backoff(attempts) if again.counts else 0)  # else the pace has it wait
            except RowFailure as refused:
                error = RowError(refused.condition, refused.message, attempts + 1)
                return Finished(request.request_id, None, "error", _sum(spent, refused.usage), error)

    async def _attempt(self, request: Request) -> tuple[str, FinishReason, Usage]:
        kind = request.call.constraint.kind
        if flaw := check_constraint(request.call.constraint):
            raise RowFailure("LLM_BAD_CONSTRAINT", f"the {kind} is not usable: {flaw}.")
        structured = self._dialect.structured
        body = self._dialect.body(request)
        reserved = estimated_tokens(request) + request.call.max_tokens
        async with self._turn(reserved) as probe:
            response = await self._post(self._dialect.path(request.call), body, probe)
        if response.status != 200:
            self._refused(request, body, read_refusal(response.status, response.headers, response.body))
        try:
            text, reason, usage = read_answer(response.body, request.call, structured)
        except FilteredAnswer as refused:
            raise _row_failed(refused.detail, refused.usage) from None
        except UnusableAnswer as unusable:
            self.counts["unusable"] += 1
            raise Again(unusable.detail, usage=unusable.usage) from None
        if usage.prompt:
            self._tokens.correct(usage.prompt + usage.output - reserved)
        if reason == "length" and kind in ("choices", "regex"):
            message = f"the answer was cut by max_tokens => {request.call.max_tokens} before it was complete."
            raise RowFailure("LLM_ANSWER_TRUNCATED", message, usage)
        return text, reason, usage

    @asynccontextmanager
    async def _turn(self, tokens: int) -> AsyncIterator[bool]:
        """Hold a slot of this host, within its rates and the server's pace; gives what `Pace.enter` says."""
        probe = await self.pace.enter()
        try:
            while wait := self._requests.reserve(1):
                await asyncio.sleep(wait)
            while wait := self._tokens.reserve(tokens):
                await asyncio.sleep(wait)
            while (slot := self._slots.acquire()) is None:
                await asyncio.sleep(SLOT_SECONDS)
            try:
                yield probe
            finally:
                self._slots.release(slot)
        finally:
            self.pace.leave(probe)

    async def _post(self, path: str, body: dict[str, Any], probe: bool) -> Response:
        started = time.monotonic()
        self.counts["requests"] += 1
        try:
            async with asyncio.timeout(self._settings.total_seconds):
                response = await read_response(
                    self._client, "POST", self._settings.url + path, json.dumps(body).encode()
                )
        except (httpx.HTTPError, TimeoutError) as problem:
            detail = "no answer in time" if isinstance(problem, TimeoutError) else describe(problem)
            self.pace.failed(detail, started, probe=probe)
            raise Again(detail, counts=not isinstance(problem, httpx.ConnectError | httpx.ConnectTimeout)) from None
        refusal = read_refusal(response.status, response.headers, response.body)
        if refusal.asks_to_wait:
            self.counts["throttled"] += 1
            self.pace.throttled(refusal.label, refusal.wait_seconds, started)
            raise Again(refusal.label, counts=False)
        if refusal.is_transient:
            self.pace.failed(refusal.label, started, probe=probe)
            raise Again(refusal.label)
        self.pace.succeeded()
        return response

    def _refused(self, request: Request, body: dict[str, Any], refusal: Refusal) -> None:
        """Raise what a refusal means; it was no transient one."""
        fatal_refusal(self._settings, refusal, str(body["model"]))
        if self._dialect.learn(body, refusal.param, refusal.message):
            raise Again(refusal.label, counts=False)
        kind = request.call.constraint.kind
        if refusal.is_too_long:
            raise RowFailure("LLM_PROMPT_TOO_LONG", f"the prompt exceeds the model's context ({refusal.label}).")
        if kind != "none" and refusal.is_about_constraint:
            raise RowFailure(
                "LLM_BAD_CONSTRAINT", f"the {kind} is not usable: the server refuses it ({refusal.label})."
            )
        raise _row_failed("the server refuses it (" + refusal.label + ")")


def _row_failed(detail: str, usage: Usage | None = None) -> RowFailure:
    return RowFailure("LLM_ROW_FAILED", f"the engine could not answer this row: {detail}.", usage)


async def read_response(client: httpx.AsyncClient, method: str, url: str, content: bytes | None = None) -> Response:
    """One HTTP exchange; a body beyond `MAX_BODY_BYTES` is an error of the server."""
    headers = {"content-type": "application/json"} if content is not None else {}
    async with client.stream(method, url, content=content, headers=headers) as response:
        body = bytearray()
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) > MAX_BODY_BYTES:
                raise httpx.ReadError("the answer is too large")
        return Response(response.status_code, response.headers, bytes(body))


def fatal_refusal(settings: EndpointSettings, refusal: Refusal, model: str) -> None:
    """Raise EngineFailure for a refusal that concerns every row: key, quota, model, address."""
    if refusal.status in KEY_STATUS:
        detail = refusal.code or ("it was sent none" if settings.api_key() is None else "it does not know the key")
        raise failure("LLM_ENDPOINT_KEY", url=settings.url, status=refusal.status, detail=detail)
    if refusal.is_out_of_quota:
        raise failure("LLM_ENDPOINT_THROTTLED", url=settings.url, detail=f"the quota is used up ({refusal.label})")
    if refusal.is_about_model:
        raise unknown_model(settings, model, refusal.label)
    if refusal.status in (404, 405, 501) or 300 <= refusal.status < 400:
        raise failure("LLM_ENDPOINT_URL", url=settings.url, detail=refusal.label)


def unknown_model(settings: EndpointSettings, model: str, detail: str) -> EngineFailure:
    message = f"the server at '{settings.url}' does not serve model '{model}': {detail}."
    return EngineFailure(
        "LLM_UNKNOWN_MODEL", message, "Set spark.llm.model, or the option model, to a name that it serves."
    )


def describe(problem: BaseException) -> str:
    """What went wrong on the way, without addresses or contents."""
    name, cause = type(problem).__name__, problem.__cause__ or problem.__context__
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return f"{name}, {(cause.reason or 'TLS').replace('_', ' ').lower()}"
        if isinstance(cause, OSError) and cause.errno:
            return f"{name}, {os.strerror(cause.errno) if cause.errno > 0 else 'unknown host'}"
        cause = cause.__cause__ or cause.__context__
    return name


def _sum(a: Usage, b: Usage) -> Usage:
    return Usage(a.prompt + b.prompt, a.cached + b.cached, a.output + b.output)
