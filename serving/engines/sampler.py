"""Draws texts of a regular expression and instances of a JSON Schema. Serves the stub engine."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping
from re import _parser as sre  # type: ignore[attr-defined]
from string import ascii_lowercase
from typing import Any

Json = Any
"""A JSON value or a JSON Schema."""

Parsed = Iterable[tuple[Any, Any]]
"""A regular expression as Python's own parser gives it: pairs of operation and argument."""

REPEATS = 4
"""An unbounded repetition is drawn at most so often above its minimum."""

FORMATS = {"date": r"20[0-2]\d-0[1-9]-[0-2][1-8]", "time": r"[01]\d:[0-5]\d:[0-5]\d"}
FORMATS["date-time"] = f"{FORMATS['date']}T{FORMATS['time']}Z"


def sample_regex(pattern: str, rng: random.Random) -> str:
    """A text that matches all of `pattern`; ValueError for a pattern with parts that cannot be drawn."""
    text = _draw(sre.parse(pattern), rng)
    if re.fullmatch(pattern, text) is None:
        message = "look-around and back-references cannot be drawn"
        raise ValueError(message)
    return text


def _draw(parsed: Parsed, rng: random.Random) -> str:
    return "".join(_draw_part(str(op), argument, rng) for op, argument in parsed)


def _draw_part(op: str, argument: Json, rng: random.Random) -> str:
    match op:
        case "LITERAL":
            return chr(argument)
        case "ANY" | "NOT_LITERAL":
            return rng.choice([c for c in ascii_lowercase if ord(c) != argument])
        case "IN":
            return rng.choice(_members(argument))
        case "BRANCH":
            return _draw(rng.choice(argument[1]), rng)
        case "SUBPATTERN":
            return _draw(argument[-1], rng)
        case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
            low, high, body = argument
            return "".join(_draw(body, rng) for _ in range(rng.randint(low, min(int(high), low + REPEATS))))
    return ""


def _members(parts: list[tuple[Json, Json]]) -> str:
    """The characters of a set such as `[a-z\\d_]`, from printable ASCII."""
    negated = str(parts[0][0]) == "NEGATE"
    inside = "".join(_set_part(str(op), argument) for op, argument in parts)
    return "".join(chr(c) for c in range(32, 127) if chr(c) not in inside) if negated else inside


def _set_part(op: str, argument: Json) -> str:
    if op == "LITERAL":
        return chr(argument)
    if op == "RANGE":
        return "".join(map(chr, range(argument[0], argument[1] + 1)))
    category = {"CATEGORY_DIGIT": r"\d", "CATEGORY_WORD": r"\w", "CATEGORY_SPACE": " "}.get(str(argument), r"\S")
    return "" if str(op) == "NEGATE" else "".join(c for c in map(chr, range(32, 127)) if re.match(category, c))


def sample_schema(schema: Json, rng: random.Random, root: Mapping[str, Any] | None = None) -> Json:
    """A JSON value that is valid under `schema`: types, enum, const, anyOf, bounds, pattern, format, $ref."""
    if not isinstance(schema, Mapping):
        return None
    root = schema if root is None else root
    if "$ref" in schema:
        return sample_schema(_resolve(schema["$ref"], root), rng, root)
    if "const" in schema:
        return schema["const"]
    for alternatives in ("enum", "anyOf", "oneOf"):
        if alternatives in schema:
            chosen = rng.choice(list(schema[alternatives]))
            return chosen if alternatives == "enum" else sample_schema(chosen, rng, root)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    return _sample_type(rng.choice(kind) if isinstance(kind, list) else kind, schema, rng, root)


def _sample_type(kind: str, schema: Mapping[str, Any], rng: random.Random, root: Mapping[str, Any]) -> Json:
    match kind:
        case "object":
            return {name: sample_schema(part, rng, root) for name, part in schema.get("properties", {}).items()}
        case "array":
            low = schema.get("minItems", 0)
            count = rng.randint(low, schema.get("maxItems", low + 3))
            return [sample_schema(schema.get("items"), rng, root) for _ in range(count)]
        case "string":
            return _sample_string(schema, rng)
        case "integer":
            return rng.randint(*_bounds(schema))
        case "number":
            return rng.randint(*_bounds(schema)) + rng.choice((0.0, 0.25, 0.5))
        case "boolean":
            return rng.random() < 0.5
        case "null":
            return None
    message = f"JSON Schema type {kind!r} is unknown"
    raise ValueError(message)


def _sample_string(schema: Mapping[str, Any], rng: random.Random) -> str:
    if pattern := schema.get("pattern") or FORMATS.get(schema.get("format", "")):
        return sample_regex(pattern, rng)
    low = schema.get("minLength", 1)
    length = rng.randint(low, schema.get("maxLength", low + 7))
    return "".join(rng.choices(ascii_lowercase, k=length))


def _bounds(schema: Mapping[str, Any]) -> tuple[int, int]:
    low = int(schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1))
    high = int(schema.get("maximum", schema.get("exclusiveMaximum", low + 101) - 1))
    return low, high


def _resolve(reference: str, root: Mapping[str, Any]) -> Json:
    node: Json = root
    for name in reference.removeprefix("#/").split("/"):
        node = node[name]
    return node
