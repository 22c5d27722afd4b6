"""Requests as one server understands them: which fields it takes, learned from its model list and refusals."""

from __future__ import annotations

import json
import re
from typing import Any

from spark_llm.serving.core import Call, Constraint, Request
from spark_llm.serving.endpoint.settings import EndpointSettings

Json = dict[str, Any]
ANSWER = "answer"
"""Member that holds the answer where the server can be told a JSON Schema of an object only."""
BYTES_PER_TOKEN = 4
WRAPPER_TOKENS = 16
"""More tokens for an answer inside an object."""
STRUCTURED_FIELDS = ("structured_outputs", "response_format")
TEMPLATE_FIELD = "chat_template_kwargs"
_UNSUPPORTED = re.compile(r"unsupported|not support|unknown|unrecognized|not permitted|unexpected|extra", re.IGNORECASE)


class Dialect:
    """How one server is asked.

    Parameters
    ----------
    owner : str
        `owned_by` of its model list: vLLM and SGLang name themselves there.
    """

    def __init__(self, settings: EndpointSettings, model: str, owner: str) -> None:
        self._settings, self._model = settings, model
        self._dropped: set[str] = set()
        self._limit_field = "max_tokens"
        self._knows_templates = owner in ("vllm", "sglang")
        automatic = "structured_outputs" if owner == "vllm" else "response_format"
        self._structured = automatic if settings.structured == "auto" else settings.structured

    @property
    def structured(self) -> str:
        """The field that constrains answers, `none` where the server has refused it."""
        return "none" if self._structured in self._dropped else self._structured

    def path(self, call: Call) -> str:
        return "/chat/completions" if call.chat else "/completions"

    def body(self, request: Request) -> Json:
        """The JSON body of a request."""
        call = request.call
        body: Json = {"model": self._model, **_prompt(request), **self._settings.extra}
        wrapped = self.structured == "response_format" and wraps(call.constraint)
        body[self._limit_field] = call.max_tokens + (WRAPPER_TOKENS if wrapped else 0)
        body["temperature"] = call.temperature
        if call.top_p != 1.0:
            body["top_p"] = call.top_p
        if call.stop:
            body["stop"] = list(call.stop)
        if request.seed is not None:
            body["seed"] = request.seed
        if self._knows_templates and call.chat:
            body.setdefault(TEMPLATE_FIELD, {"enable_thinking": False})
        if call.constraint.kind != "none" and self.structured != "none":
            body[self.structured] = _constrained(self.structured, call.constraint)
        return {name: value for name, value in body.items() if name not in self._dropped}

    def learn(self, body: Json, param: str, message: str) -> bool:
        """Whether a refusal (HTTP 400) taught to ask otherwise: the same row may then be asked again."""
        if "max_completion_tokens" in message and "max_tokens" in body:
            self._limit_field = "max_completion_tokens"
            return True
        if not _UNSUPPORTED.search(message):
            return False
        droppable = [*STRUCTURED_FIELDS, TEMPLATE_FIELD, *(["temperature"] if body.get("temperature") == 0 else [])]
        named = next((name for name in droppable if name in body and (param.startswith(name) or name in message)), None)
        if named is None:
            return False
        self._dropped.add(named)
        return True


def estimated_tokens(request: Request) -> int:
    """Prompt tokens, roughly."""
    return 1 + len(request.text) // BYTES_PER_TOKEN


def schema_of(constraint: Constraint) -> Any:
    """The constraint as a JSON Schema of the bare answer."""
    match constraint.kind:
        case "choices":
            return {"type": "string", "enum": list(constraint.value)}
        case "regex":
            return {"type": "string", "pattern": f"^(?:{constraint.value})$"}
    return json.loads(constraint.value) if isinstance(constraint.value, str) else constraint.value


def wraps(constraint: Constraint) -> bool:
    """Whether `response_format` needs an object around the answer."""
    return constraint.kind != "none" and schema_of(constraint).get("type") != "object"


def _prompt(request: Request) -> Json:
    system, text = request.call.system, request.text
    if not request.call.chat:
        return {"prompt": f"{system}\n\n{text}" if system else text}
    messages = [{"role": "system", "content": system}] if system else []
    return {"messages": [*messages, {"role": "user", "content": text}]}


def _constrained(field: str, constraint: Constraint) -> Json:
    if field == "structured_outputs":
        name = {"choices": "choice", "regex": "regex"}.get(constraint.kind, "json")
        return {name: schema_of(constraint) if name == "json" else constraint.value}
    schema = schema_of(constraint)
    if wraps(constraint):
        shared = {name: schema[name] for name in ("$defs", "definitions") if name in schema}
        schema = {
            "type": "object",
            "properties": {ANSWER: schema},
            "required": [ANSWER],
            "additionalProperties": False,
            **shared,  # references inside start at the root
        }
    return {"type": "json_schema", "json_schema": {"name": ANSWER, "schema": schema, "strict": _is_strict(schema)}}


def _is_strict(schema: Any) -> bool:
    """Whether every object names all its members as required and allows no others, as strict mode asks."""
    if isinstance(schema, list):
        return all(map(_is_strict, schema))
    if not isinstance(schema, dict):
        return True
    if schema.get("type") == "object":
        closed = schema.get("additionalProperties") is False
        if not closed or set(schema.get("required", ())) != set(schema.get("properties", {})):
            return False
    return all(map(_is_strict, schema.values()))
