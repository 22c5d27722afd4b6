"""What a server answered: the text, checked against the call's constraint, and the tokens it says it used."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jsonschema
from spark_llm.serving.core import Call, Constraint, FinishReason, Usage
from spark_llm.serving.endpoint.dialect import ANSWER, schema_of, wraps

REASONS: dict[str, FinishReason] = {"stop": "stop", "eos": "stop", "length": "length"}
_FENCE = re.compile(r"\A\s*```\w*\n(.*)\n```\s*\Z", re.DOTALL)


class UnusableAnswer(Exception):
    """A body that is no completion, or an answer that breaks the constraint. The message holds no user data."""

    def __init__(self, detail: str, usage: Usage | None = None) -> None:
        super().__init__(detail)
        self.detail, self.usage = detail, usage or Usage()


class FilteredAnswer(UnusableAnswer):
    """The server ended this row on purpose (content filter, refusal): asking again does not help."""


def read_answer(body: bytes, call: Call, structured: str) -> tuple[str, FinishReason, Usage]:
    """Text, finish reason and usage of a completion's body.

    Raises
    ------
    UnusableAnswer
        With the usage where tokens were spent.
    """
    raw = _completion(body)
    choice = raw["choices"][0]
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else choice.get("text")
    usage = read_usage(raw.get("usage"))
    reason = REASONS.get(str(choice.get("finish_reason")), "stop")
    if choice.get("finish_reason") == "content_filter" or (isinstance(message, dict) and message.get("refusal")):
        raise FilteredAnswer("the server refused to answer it (content filter)", usage)
    if not isinstance(text, str):
        if reason == "length":
            text = ""  # a reasoning model that spent all tokens before its answer
        else:
            raise UnusableAnswer("the answer holds no text", usage)
    text = _cut_at_stop(text, call)
    if call.constraint.kind == "none":
        return text, reason, usage
    try:
        return conform(call.constraint, text, structured, usage), "stop", usage
    except UnusableAnswer:
        if reason == "length":
            return text, reason, usage
        raise


def _completion(body: bytes) -> Any:
    try:
        raw = json.loads(body)
    except ValueError:
        raise UnusableAnswer("the server's answer is no JSON") from None
    try:
        if isinstance(raw["choices"][0], dict):
            return raw
    except (KeyError, IndexError, TypeError):
        pass
    raise UnusableAnswer("the server's answer has no 'choices': it is no completion")


def read_usage(raw: Any) -> Usage:
    """Tokens by the `usage` member; cached ones by the names that OpenAI's and DeepSeek's interfaces use."""
    if not isinstance(raw, Mapping):
        return Usage()
    details = raw.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, Mapping) else raw.get("prompt_cache_hit_tokens")
    prompt = _count(raw.get("prompt_tokens"))
    return Usage(prompt, min(_count(cached), prompt), _count(raw.get("completion_tokens")))


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _cut_at_stop(text: str, call: Call) -> str:
    """Not every server takes stop strings, and some return them."""
    places = [place for stop in call.stop if (place := text.find(stop)) >= 0]
    return text[: min(places)] if places else text


def conform(constraint: Constraint, text: str, structured: str, usage: Usage | None = None) -> str:
    """The answer inside `text`, as the constraint wants it; raises UnusableAnswer where it is not."""
    candidate = fenced[1] if (fenced := _FENCE.match(text)) else text
    if structured == "response_format" and wraps(constraint):
        candidate = _unwrap(candidate, constraint)
    match constraint.kind:
        case "choices":
            answer = _choice(candidate, constraint.value)
        case "regex":
            answer = next((t for t in (candidate, candidate.strip()) if _matches(constraint.value, t)), None)
        case _:
            answer = candidate if _is_valid(candidate, constraint) else None
    if answer is None:
        detail = f"the answer breaks the call's {constraint.kind}"
        raise UnusableAnswer(detail, usage)
    return answer


def _unwrap(text: str, constraint: Constraint) -> str:
    try:
        value = json.loads(text)[ANSWER]
    except (ValueError, KeyError, TypeError, IndexError):
        return text
    bare = isinstance(value, str) and constraint.kind in ("choices", "regex")
    return value if bare else json.dumps(value, ensure_ascii=False)


def _choice(text: str, choices: Any) -> str | None:
    """The choice that `text` is, up to blanks, quotes, case and a full stop around it, if that is one only."""
    if text in choices:
        return text
    plain = text.strip(" \t\r\n\"'`.*").casefold()
    found = [choice for choice in choices if choice.strip().casefold() == plain]
    return found[0] if len(found) == 1 else None


def _matches(pattern: str, text: str) -> bool:
    try:
        return re.fullmatch(pattern, text) is not None
    except re.error:
        return True  # written in the server's syntax, and checked by it


def _is_valid(text: str, constraint: Constraint) -> bool:
    value = constraint.value if isinstance(constraint.value, str) else json.dumps(constraint.value)
    try:
        return bool(_validator(value).is_valid(json.loads(text)))
    except (ValueError, RecursionError):
        return False


@lru_cache(maxsize=256)
def _validator(schema: str) -> Any:
    raw = json.loads(schema)
    return jsonschema.validators.validator_for(raw)(raw)


def check_constraint(constraint: Constraint) -> str | None:
    """Why a constraint is not usable by any server, or None."""
    try:
        schema = schema_of(constraint) if constraint.kind != "none" else None
        if constraint.kind == "json_schema":
            jsonschema.validators.validator_for(schema).check_schema(schema)
        if constraint.kind == "choices" and not all(isinstance(c, str) and c for c in constraint.value):
            return "it must be a list of texts, none of them empty"
    except (ValueError, TypeError, jsonschema.SchemaError) as problem:
        return f"it is no JSON Schema ({type(problem).__name__})"
    return None
