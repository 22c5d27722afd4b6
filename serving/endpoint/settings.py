"""Settings of the endpoint engine, and its API key."""

from __future__ import annotations

import ipaddress
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from spark_llm.serving.arguments import read_arguments
from spark_llm.serving.core import EngineFailure
from spark_llm.serving.scheduler.policies import DEFAULT_POLICY, POLICIES

from spark_llm.errors import LlmError

OPERATIONS = ("/chat/completions", "/completions", "/models")
STRUCTURED = ("auto", "structured_outputs", "response_format", "none")


def failure(condition: str, **parameters: object) -> EngineFailure:
    """A row of the table of errors, as a failure of the whole call."""
    error = LlmError(condition, **parameters)
    return EngineFailure(condition, error.message, error.remedy)


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """The `spark.llm.endpoint.*` and `spark.llm.price.*` settings, and a few of `spark.llm.engine.args`.

    Parameters
    ----------
    policy : str
        Whose request goes next, see docs/scheduling.md.
    extra : mapping
        Members added to every request's body as they are.
    plain_key : bool
        Send the API key over unencrypted HTTP to another host.
    """

    url: str = ""
    key_env: str = "SPARK_LLM_API_KEY"
    key_file: str = ""
    concurrency: int = 64
    requests_per_minute: float = 0.0
    tokens_per_minute: float = 0.0
    connect_seconds: float = 10.0
    read_seconds: float = 120.0
    total_seconds: float = 600.0
    retries: int = 5
    patience_seconds: float = 60.0
    structured: str = "auto"
    price_prompt: float = 0.0
    price_cached: float = 0.0
    price_output: float = 0.0
    policy: str = DEFAULT_POLICY
    extra: Mapping[str, Any] = field(default_factory=dict)
    plain_key: bool = False

    @classmethod
    def from_args(cls, args: Mapping[str, Any]) -> EndpointSettings:
        """Check names, types and the URL.

        Raises
        ------
        EngineFailure
            `LLM_BAD_CONF`. What was passed is not repeated where it may hold a secret.
        """
        choices = {"structured": STRUCTURED, "policy": POLICIES}
        values = read_arguments(cls, args, bad_conf, choices=choices, positive=("concurrency",))
        return cls(**values | {"url": _base_url(values.get("url", ""))})

    def api_key(self) -> str | None:
        """The key, from the file if one is set, else from the environment; None where there is none.

        Raises
        ------
        EngineFailure
            For a file that is absent, empty or open to others, and for a key that would travel unencrypted.
        """
        key = _read_key(Path(self.key_file)) if self.key_file else os.environ.get(self.key_env, "").strip()
        if key and not (key.isascii() and key.isprintable() and " " not in key):
            raise bad_conf("key", "it holds blanks or characters that no HTTP header can carry")
        parts = urlsplit(self.url)
        if key and parts.scheme == "http" and not is_loopback(parts.hostname or "") and not self.plain_key:
            detail = 'the API key would travel unencrypted; use https, or engine.args {"plain_key": true}'
            raise bad_conf("url", detail)
        return key or None


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def bad_conf(name: str, detail: str) -> EngineFailure:
    return failure("LLM_BAD_CONF", key=f"endpoint setting {name}", value="…", detail=detail)


def _base_url(url: str) -> str:
    try:
        parts = urlsplit(url.strip())
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable:
        raise bad_conf("url", "it must be a base URL such as https://api.example.com/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise bad_conf("url", "it must not hold a password, a query or a fragment; the key has settings of its own")
    path = parts.path.rstrip("/")
    for operation in OPERATIONS:
        path = path.removesuffix(operation)
    return f"{parts.scheme}://{parts.netloc}{path}"


def _read_key(file: Path) -> str:
    try:
        with file.open(encoding="utf-8") as stream:
            mode = os.fstat(stream.fileno())
            if mode.st_mode & 0o077 or not stat.S_ISREG(mode.st_mode) or mode.st_uid != os.geteuid():
                raise bad_conf("key_file", f"'{file}' must be a file of this user that nobody else can read (mode 600)")
            key = stream.read(1 << 16).strip()
    except (OSError, UnicodeDecodeError) as problem:
        raise bad_conf("key_file", f"'{file}' cannot be read ({type(problem).__name__})") from None
    if not key:
        raise bad_conf("key_file", f"'{file}' is empty")
    return key
