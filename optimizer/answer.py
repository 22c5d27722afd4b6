"""What a call's answers look like: the constraint on them, the sentence that says so, and how long they get."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from spark_llm.optimizer.core import CallSpec
from spark_llm.optimizer.ddl import to_ddl
from spark_llm.optimizer.errors import InvalidCall
from spark_llm.optimizer.options import malformed
from spark_llm.optimizer.schema import json_schema


@dataclass(frozen=True, slots=True)
class Answer:
    """`kind` and `value` as in `serving.core.Constraint`; `sentence` follows the instruction, on a line of its own."""

    kind: str
    value: Any
    sentence: str
    max_tokens: int


def describe_answer(spec: CallSpec) -> Answer:
    """The answer that a call asks for.

    Raises
    ------
    InvalidCall
        A result type that no answer can have, a JSON Schema that is no JSON object, an unusable `spark.llm.maxTokens`.

    Examples
    --------
    >>> describe_answer(CallSpec("llm", "How old?", (), result_type="long")).sentence
    '\\nAnswer only with JSON of the SQL type BIGINT.'
    """
    options = spec.options
    if spec.function == "llm_filter":
        return _choices(spec, ["true", "false"], "\nAnswer with true or false.")
    if "choices" in options:
        labels = list(options["choices"])
        return _choices(spec, labels, f"\nAnswer with one of {json.dumps(labels, ensure_ascii=False)}.")
    if "regex" in options:
        return Answer("regex", options["regex"], "", _max_tokens(spec))
    if "json_schema" in options:
        text = _checked(spec.function, options["json_schema"])
        return Answer("json_schema", text, f"\nAnswer only with JSON of the JSON Schema {text}.", _max_tokens(spec))
    if spec.result_type == "string":
        return Answer("none", None, "", _max_tokens(spec))
    sentence = f"\nAnswer only with JSON of the SQL type {to_ddl(spec.result_type)}."
    return Answer("json_schema", _schema(spec), sentence, _max_tokens(spec))


def _choices(spec: CallSpec, texts: list[str], sentence: str) -> Answer:
    # A token is at least one byte, and one more ends the answer: a choice is never cut by default.
    longest = max(len(text.encode()) for text in texts) + 1
    return Answer("choices", texts, sentence, _max_tokens(spec) if "max_tokens" in spec.options else longest)


def _schema(spec: CallSpec) -> str:
    try:
        return json.dumps(json_schema(spec.result_type))
    except ValueError as error:
        raise malformed(spec.function, str(error)) from None


def _checked(function: str, text: str) -> str:
    try:
        detail = "it must be a JSON object" if not isinstance(json.loads(text), dict) else ""
    except ValueError as error:
        detail = f"no JSON: {error}"
    if detail:
        raise InvalidCall(condition="LLM_BAD_CONSTRAINT", function=function, kind="json_schema", detail=detail)
    return text


def _max_tokens(spec: CallSpec) -> int:
    given, limit = spec.options.get("max_tokens"), _setting(spec, "spark.llm.limit.outputTokens", "32768")
    tokens = _setting(spec, "spark.llm.maxTokens", "256") if given is None else given
    if tokens > limit:
        what = f"{spec.function}() asks for answers of up to {tokens} tokens"
        raise InvalidCall("LLM_LIMIT_EXCEEDED", what=what, key="spark.llm.limit.outputTokens", limit=limit)
    return tokens


def _setting(spec: CallSpec, key: str, default: str) -> int:
    text = spec.conf.get(key, default)
    if not text.isdecimal() or int(text) < 1:
        raise InvalidCall(condition="LLM_BAD_CONF", key=key, value=text, detail="it must be an integer >= 1")
    return int(text)
