"""The `spark.llm.*` settings: one table in `conf.json`, read typed here, read by the JVM from its copy in the JAR."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from spark_llm.allowed import check_file, check_model
from spark_llm.errors import LlmError, is_secret_name
from spark_llm.serving.core import ModelRef

PREFIX = "spark.llm."
ENDPOINT_TEXTS = {
    "endpoint.url": "url",
    "endpoint.keyEnv": "key_env",
    "endpoint.keyFile": "key_file",
    "endpoint.structured": "structured",
}
ENDPOINT_NUMBERS = {
    "endpoint.concurrency": "concurrency",
    "endpoint.requestsPerMinute": "requests_per_minute",
    "endpoint.tokensPerMinute": "tokens_per_minute",
    "endpoint.connectSeconds": "connect_seconds",
    "endpoint.readSeconds": "read_seconds",
    "endpoint.totalSeconds": "total_seconds",
    "endpoint.retries": "retries",
    "endpoint.patienceSeconds": "patience_seconds",
    "price.prompt": "price_prompt",
    "price.cached": "price_cached",
    "price.output": "price_output",
}


@cache
def conf_table() -> Mapping[str, Mapping[str, Any]]:
    """`{key: {default, doc, applies, choices?}}`."""
    return json.loads(files("spark_llm").joinpath("conf.json").read_text())


class Settings:
    """Typed view of a session's `spark.llm.*` settings over their defaults.

    Parameters
    ----------
    given : mapping
        Settings as strings; keys outside `spark.llm.` are ignored.

    Raises
    ------
    LlmError
        `LLM_BAD_CONF` for an unknown key or a value that does not parse, naming the key.
    """

    def __init__(self, given: Mapping[str, str]) -> None:
        table = conf_table()
        self._values = {key: str(row["default"]) for key, row in table.items()}
        for key, value in given.items():
            if key.startswith(PREFIX):
                self._check(key, value, table)
                self._values[key] = value

    @staticmethod
    def _check(key: str, value: str, table: Mapping[str, Mapping[str, Any]]) -> None:
        if key not in table:
            near = difflib.get_close_matches(key, table, n=1)
            detail = f"there is no such key; did you mean {near[0]}?" if near else "there is no such key"
            raise LlmError("LLM_BAD_CONF", key=key, value=value, detail=detail)
        choices = table[key].get("choices")
        if choices and value not in choices:
            raise LlmError("LLM_BAD_CONF", key=key, value=value, detail=f"accepted: {', '.join(choices)}")

    def text(self, name: str) -> str:
        return self._values[PREFIX + name]

    def integer(self, name: str) -> int:
        return int(self.number(name))

    def number(self, name: str) -> float:
        try:
            return float(self.text(name))
        except ValueError:
            raise LlmError("LLM_BAD_CONF", key=PREFIX + name, value=self.text(name), detail="not a number") from None

    def flag(self, name: str) -> bool:
        value = self.text(name).lower()
        if value not in ("true", "false"):
            raise LlmError("LLM_BAD_CONF", key=PREFIX + name, value=value, detail="accepted: true, false")
        return value == "true"

    def engine_args(self) -> dict[str, Any]:
        """The JSON object of engine settings."""
        args = self._json_object("engine.args")
        if secret := next(filter(is_secret_name, args), None):
            detail = f"'{secret}' is a secret, and settings are shown in Spark's UI and plans: keep it in a file"
            raise LlmError("LLM_BAD_CONF", key=PREFIX + "engine.args", value=self.text("engine.args"), detail=detail)
        return args

    def pool_weight(self) -> float:
        """The weight of this session's pool."""
        weight = self._json_object("pool.weights").get(self.text("pool"), 1.0)
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 < weight < math.inf:
            text = self.text("pool.weights")
            raise LlmError("LLM_BAD_CONF", key=PREFIX + "pool.weights", value=text, detail="weights must be positive")
        return float(weight)

    def _json_object(self, name: str) -> dict[str, Any]:
        text = self.text(name)
        try:
            value = json.loads(text)
        except json.JSONDecodeError as error:
            raise LlmError("LLM_BAD_CONF", key=PREFIX + name, value=text, detail=f"not JSON: {error}") from None
        if not isinstance(value, dict):
            raise LlmError("LLM_BAD_CONF", key=PREFIX + name, value=text, detail="not a JSON object")
        return value

    def model(self, name: str | None = None) -> ModelRef:
        """The model to ask, `name` taking precedence over `spark.llm.model`."""
        engine = self.text("engine")
        python = self.text("engine.vllm.python") if engine == "vllm" else ""
        args = {**self.endpoint_args(), **self.engine_args()} if engine == "endpoint" else self.engine_args()
        name = name or self.text("model")
        check_model(name, self.text("models.allowed"))
        return ModelRef(name, engine, python, args)

    def endpoint_args(self) -> dict[str, Any]:
        """What the endpoint engine is told, under the names it uses."""
        check_file(self.text("endpoint.keyFile"), self.text("files.allowed"))
        texts = {argument: self.text(name) for name, argument in ENDPOINT_TEXTS.items()}
        numbers = {argument: self.number(name) for name, argument in ENDPOINT_NUMBERS.items() if self.text(name)}
        numbers.setdefault("price_cached", numbers.get("price_prompt", 0.0))
        return texts | numbers


def conf_markdown() -> str:
    """The table of settings as Markdown; `docs/configuration.md` is made of it."""
    rows = (
        f"| `{key}` | `{row['default']}` | {row['applies']} | {_meaning(row)} |" for key, row in conf_table().items()
    )
    return "\n".join(["| key | default | applies to | meaning |", "|---|---|---|---|", *rows])


def _meaning(row: Mapping[str, Any]) -> str:
    choices: Iterable[str] = row.get("choices", ())
    return row["doc"] + (f" One of: {', '.join(f'`{c}`' for c in choices)}." if choices else "")
