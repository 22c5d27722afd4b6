"""What an HTTP status means: asking again may help, this row cannot be answered, or no row can."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

TRANSIENT = frozenset({408, 409, 425, 500, 502, 503, 504, 520, 522, 524, 529})
QUOTA_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
_TOO_LONG = re.compile(
    r"context[ _](?:length|window)|maximum[^.]{0,40}length|too (?:long|large|many tokens)|max_model_len"
)
_CONSTRAINT = re.compile(r"schema|regex|grammar|structured|response_format|guided|choice", re.IGNORECASE)
_WORD = re.compile(r"[\w.\[\]-]{1,60}")


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer with an HTTP status other than 200. `message` is the server's own and may hold user data."""

    status: int
    code: str = ""
    param: str = ""
    message: str = ""
    wait_seconds: float | None = None

    @property
    def label(self) -> str:
        """What may be shown and logged."""
        return f"HTTP {self.status}" + (f" {self.code}" if self.code else "")

    @property
    def is_transient(self) -> bool:
        return self.status in TRANSIENT

    @property
    def asks_to_wait(self) -> bool:
        """Throttled, or overloaded with a time to come back at."""
        throttled = self.status == 429 and not self.is_out_of_quota
        return throttled or (self.status == 503 and self.wait_seconds is not None)

    @property
    def is_out_of_quota(self) -> bool:
        return self.status == 402 or (self.status == 429 and self.code in QUOTA_CODES)

    @property
    def is_too_long(self) -> bool:
        return self.code == "context_length_exceeded" or self.status == 413 or bool(_TOO_LONG.search(self.message))

    @property
    def is_about_model(self) -> bool:
        return self.status == 404 and ("model" in self.code or "model" in self.message.lower())

    @property
    def is_about_constraint(self) -> bool:
        return bool(_CONSTRAINT.search(self.param) or _CONSTRAINT.search(self.message))


def read_refusal(status: int, headers: Mapping[str, str], body: bytes) -> Refusal:
    """The refusal of a response; its error object may be absent or in any of the forms that servers use."""
    try:
        raw = json.loads(body)
    except ValueError:
        raw = {}
    error = raw.get("error", raw) if isinstance(raw, dict) else {}
    if not isinstance(error, dict):
        error = {"message": error}
    code = error.get("code") if isinstance(error.get("code"), str) else error.get("type")
    message = str(error.get("message") or error.get("detail") or "")
    return Refusal(status, _word(code), _word(error.get("param")), message[:2000], retry_after(headers))


def _word(value: Any) -> str:
    """A code that the server sent, if it looks like one: free text could repeat the prompt."""
    return value if isinstance(value, str) and _WORD.fullmatch(value) else ""


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by `Retry-After` (RFC 9110, section 10.2.3: seconds or a date) or `retry-after-ms`."""
    if (milliseconds := headers.get("retry-after-ms", "")).replace(".", "", 1).isdecimal():
        return float(milliseconds) / 1000
    text = headers.get("retry-after", "").strip()
    if text.replace(".", "", 1).isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError):
        return None
