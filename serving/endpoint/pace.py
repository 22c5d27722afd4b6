"""When attempts may be sent: not before the server's own time, and one at a time while it is down."""

from __future__ import annotations

import asyncio
import random
import time

from spark_llm.serving.endpoint.settings import EndpointSettings, failure

TRIP = 5
"""Failures in a row after which one attempt at a time tries whether the server is back (a circuit breaker)."""
FIRST_WAIT, LONGEST_WAIT = 0.5, 20.0
LOOK_SECONDS = 0.1


def backoff(attempt: int) -> float:
    """Seconds before the attempt after `attempt` failed ones: exponential, with jitter over its upper half."""
    return random.uniform(0.5, 1.0) * min(LONGEST_WAIT, FIRST_WAIT * 2**attempt)


class Pace:
    """Shared by all requests of one server; used by one event loop.

    `window` is how many requests may run at once: additive increase, multiplicative decrease on HTTP 429, as TCP
    adapts to a network (Chiu and Jain, 1989), within `settings.concurrency`.
    """

    def __init__(self, settings: EndpointSettings) -> None:
        self._settings = settings
        self.window = float(settings.concurrency)
        self._resume = self._last_cut = 0.0
        self._failures = self._failed_probes = self._cuts = 0
        self._unanswered_since: float | None = None
        self._probing = False

    async def enter(self) -> bool:
        """Wait for one's turn; says whether this attempt is the probe of a server that is down."""
        while True:
            wait = self._resume - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait + random.uniform(0, 0.1))
            elif self._failures < TRIP:
                return False
            elif not self._probing:
                self._probing = True
                return True
            else:
                await asyncio.sleep(LOOK_SECONDS)

    def leave(self, probe: bool) -> None:
        if probe:
            self._probing = False

    def succeeded(self) -> None:
        """The server has answered, if only to refuse a row."""
        self._failures = self._failed_probes = self._cuts = 0
        self._unanswered_since = None
        self.window = min(float(self._settings.concurrency), self.window + 1 / self.window)

    def failed(self, detail: str, started: float, *, probe: bool) -> None:
        """Count an attempt that got no usable response; raises EngineFailure once patience is at its end."""
        self._failures += 1
        seconds = self._unanswered_seconds(started)
        if self._failures < TRIP:
            return
        self._resume = max(self._resume, time.monotonic() + backoff(self._failed_probes))
        self._failed_probes += probe
        if seconds >= self._settings.patience_seconds:
            raise failure("LLM_ENDPOINT_DOWN", url=self._settings.url, seconds=round(seconds), detail=detail)

    def throttled(self, detail: str, wait: float | None, started: float) -> None:
        """Hold all attempts as long as the server asks (HTTP 429); raises EngineFailure where that is too long."""
        seconds = self._unanswered_seconds(started)
        patience = self._settings.patience_seconds
        if wait is not None and wait > patience:
            detail = f"it asks to wait {round(wait)} seconds, more than patienceSeconds = {patience:g}"
            raise failure("LLM_ENDPOINT_THROTTLED", url=self._settings.url, detail=detail)
        now = time.monotonic()
        if started >= self._last_cut:  # once for all that ran at the same time
            self.window, self._last_cut = max(1.0, self.window / 2), now
            self._resume = max(self._resume, now + backoff(self._cuts))
            self._cuts += 1
        self._resume = max(self._resume, now + (wait or 0.0))
        if seconds >= patience and self._cuts >= TRIP:
            detail = f"no other answer for {round(seconds)} seconds; last: {detail}"
            raise failure("LLM_ENDPOINT_THROTTLED", url=self._settings.url, detail=detail)

    def _unanswered_seconds(self, started: float) -> float:
        if self._unanswered_since is None:
            self._unanswered_since = started
        return time.monotonic() - self._unanswered_since
