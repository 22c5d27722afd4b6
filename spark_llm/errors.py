"""Errors that users see: every one is a row of `error-conditions.json`, filled in and followed by its remedy."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files


@cache
def error_conditions() -> Mapping[str, Mapping[str, str]]:
    """The table of conditions: `{condition: {message, remedy}}`, shared with the JVM."""
    return json.loads(files("spark_llm").joinpath("error-conditions.json").read_text())


def _fill(template: str, parameters: Mapping[str, object]) -> str:
    return re.sub(r"<(\w+)>", lambda m: str(parameters.get(m[1], m[0])), template)


_SECRET_NAME = r"[\w.-]*(?:secret|password|passwd|credentials?|authorization|(?:api|access)[_.-]?key|token)"
_SECRETS = re.compile(
    rf"(?P<name>(?:\b{_SECRET_NAME}\b[\"']?\s*[:=]\s*[\"']?(?:Bearer\s+)?)|\bBearer\s+|\w://[^/\s:@]+:(?=[^\s/@]+@))"
    r"[^\s\"',;}@]+|\b(?:sk-|hf_)\w{16,}",
    re.IGNORECASE,
)


def is_secret_name(name: str) -> bool:
    """Whether a setting of this name would hold a secret itself (not the name of a file or variable that does)."""
    return re.fullmatch(_SECRET_NAME, name, re.IGNORECASE) is not None


def redact(text: str) -> str:
    """`text` without the values of what is called a secret, of bearer tokens and of passwords in addresses.

    Examples
    --------
    >>> redact('{"api_key": "abc", "max_tokens": 5} https://me:word@host')
    '{"api_key": "***", "max_tokens": 5} https://me:***@host'
    >>> redact("http://127.0.0.1:8000/v1")
    'http://127.0.0.1:8000/v1'
    """
    return _SECRETS.sub(lambda found: f"{found['name'] or ''}***", text)


class LlmError(Exception):
    """A failure with a condition of the table.

    Examples
    --------
    >>> print(LlmError("LLM_JAVA", found="none"))
    [LLM_JAVA] Java 17 or newer is needed, found none.
    <BLANKLINE>
    Install a JDK 17 or 21, or set JAVA_HOME.
    """

    def __init__(self, condition: str, **parameters: object) -> None:
        row = error_conditions()[condition]
        self.condition = condition
        self.message, self.remedy = (redact(_fill(row[part], parameters)) for part in ("message", "remedy"))
        super().__init__(f"[{condition}] {self.message}\n\n{self.remedy}")

    @classmethod
    def of(cls, condition: str, message: str, remedy: str) -> LlmError:
        """The error of a failure that already has its words, for example one that the worker reports."""
        error = cls.__new__(cls)
        error.condition, error.message, error.remedy = condition, redact(message), redact(remedy)
        Exception.__init__(error, f"[{condition}] {error.message}\n\n{error.remedy}")
        return error
