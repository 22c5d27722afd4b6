"""Check a call's options against the table of functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spark_llm.optimizer.core import function_table
from spark_llm.optimizer.errors import InvalidCall

_IMPLIED = {"llm_classify": ("choices",), "llm_extract": ("returns",)}
"""Options that stand in the call as its last positional argument."""

_EXCLUSIVE = ("choices", "returns", "json_schema", "regex")

_TYPES = {
    "string": "a constant STRING",
    "int": "a constant INT",
    "long": "a constant BIGINT",
    "double": "a constant number",
    "boolean": "true or false",
    "string_array": "a constant non-empty ARRAY<STRING>",
    "ddl": "a constant SQL type",
}


def check_options(function: str, options: Mapping[str, Any]) -> None:
    """Raise `InvalidCall` for an unknown option or a value outside its type, naming what is accepted.

    Examples
    --------
    >>> check_options("llm", {"max_tokens": 64})
    >>> check_options("llm", {"maxtokens": 64})
    Traceback (most recent call last):
    spark_llm.optimizer.errors.InvalidCall: [LLM_UNKNOWN_OPTION] llm() has no option 'maxtokens'; accepted: ...
    """
    accepted = function_table()["functions"][function]["options"]
    for name, value in options.items():
        if name not in accepted and name not in _IMPLIED.get(function, ()):
            raise InvalidCall(
                condition="LLM_UNKNOWN_OPTION", function=function, option=name, accepted=", ".join(accepted)
            )
        _check_value(function, name, value)
    given = [name for name in _EXCLUSIVE if name in options]
    if len(given) > 1:
        detail = f"{' and '.join(given)} exclude each other"
        raise malformed(function, detail)
    if function == "llm_classify":
        _check_labels(options.get("choices", ()))


def malformed(function: str, detail: str) -> InvalidCall:
    """The error for a call whose shape is wrong, with the function's usage."""
    usage = function_table()["functions"][function]["usage"].split(" - ")[0]
    return InvalidCall(condition="LLM_MALFORMED_CALL", function=function, detail=detail, usage=usage)


def _check_value(function: str, name: str, value: object) -> None:
    rule = function_table()["options"][name]
    if not _fits(rule, value):
        actual = type(value).__name__ if isinstance(value, str | list | tuple) else repr(value)
        raise InvalidCall(
            condition="LLM_BAD_OPTION",
            function=function,
            option=name,
            expected=_expected(rule),
            actual=actual,
            doc=f"{name}: {rule['doc']}.",
        )


def _fits(rule: Mapping[str, Any], value: object) -> bool:
    match rule["type"]:
        case "boolean":
            return isinstance(value, bool)
        case "int" | "long" | "double":
            number = (int, float) if rule["type"] == "double" else int
            if isinstance(value, bool) or not isinstance(value, number):
                return False
            bits = 32 if rule["type"] == "int" else 64
            within = rule["type"] == "double" or -(2 ** (bits - 1)) <= value < 2 ** (bits - 1)
            return within and rule.get("minimum", value) <= value <= rule.get("maximum", value)
        case "string_array":
            return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value) and len(value) > 0
        case _:
            return isinstance(value, str) and value in rule.get("choices", (value,))


def _expected(rule: Mapping[str, Any]) -> str:
    if "choices" in rule:
        return "one of " + ", ".join(f"'{choice}'" for choice in rule["choices"])
    limits = [f"{sign} {rule[key]}" for key, sign in (("minimum", ">="), ("maximum", "<=")) if key in rule]
    return f"{_TYPES[rule['type']]} {' and '.join(limits)}".strip()


def _check_labels(labels: Sequence[str]) -> None:
    if len(labels) < 2 or len(set(labels)) != len(labels):
        raise malformed(
            "llm_classify", f"it needs at least two distinct labels, got {len(set(labels))} distinct of {len(labels)}"
        )
