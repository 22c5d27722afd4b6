"""What an answer of a JSON Schema looks like, for its length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ITEMS = 2
"""Of an array, and entries of an object whose keys are free."""

DEPTH = 8
"""Of a schema, which may refer to itself."""

_TEXTS = {"date": "2024-05-17", "date-time": "2024-05-17T10:30:00"}


def typical_answer(schema: Mapping[str, Any], depth: int = DEPTH) -> Any:
    """A value that follows the schema, as long as one would expect: names of two words, numbers of two digits.

    What cannot be told from the schema alone counts as a string.

    Examples
    --------
    >>> fields = {"actor": {"anyOf": [{"type": "string"}, {"type": "null"}]}, "score": {"type": "integer"}}
    >>> typical_answer({"type": "object", "properties": fields})
    {'actor': 'two words', 'score': 42}
    """
    for choice in ("const", "enum", "anyOf", "oneOf"):
        if choice in schema:
            first = schema[choice] if choice == "const" else next(iter(schema[choice]), {})
            return typical_answer(first, depth - 1) if isinstance(first, Mapping) and depth else first
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if kind == "object" and depth:
        properties, others = schema.get("properties", {}), schema.get("additionalProperties")
        free = {f"key {i}": others for i in range(ITEMS)} if not properties and isinstance(others, Mapping) else {}
        return {name: typical_answer(inner, depth - 1) for name, inner in {**properties, **free}.items()}
    if kind == "array" and depth:
        return [typical_answer(schema.get("items", {}), depth - 1)] * ITEMS
    simple = {"integer": 42, "number": 4.2, "boolean": True, "null": None}
    return simple.get(kind, _TEXTS.get(schema.get("format", ""), "two words"))
