"""The JSON Schema that answers of a Spark type follow."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NoReturn

from spark_llm.optimizer.ddl import SparkType

INTEGER_BITS = {"byte": 8, "short": 16, "integer": 32, "long": 64}
"""Spark's integer types, by their JSON names."""


def json_schema(spark_type: SparkType) -> dict[str, Any]:
    """The JSON Schema of answers of a Spark type.

    Parameters
    ----------
    spark_type : object
        Spark's JSON form, e.g. `"integer"` or `{"type": "struct", "fields": [...]}`. Every field of a struct is
        required, in its order; a nullable one may be null.

    Raises
    ------
    ValueError
        For a type that no JSON text can stand for (BINARY, VARIANT, intervals, maps with other than STRING keys).

    Examples
    --------
    >>> json_schema({"type": "array", "elementType": "boolean", "containsNull": True})
    {'type': 'array', 'items': {'type': 'boolean'}}
    """
    if isinstance(spark_type, Mapping):
        return _nested_schema(spark_type)
    if spark_type in INTEGER_BITS:
        bound = 2 ** (INTEGER_BITS[spark_type] - 1)
        return (
            {"type": "integer"}
            if spark_type == "long"
            else {"type": "integer", "minimum": -bound, "maximum": bound - 1}
        )
    if spark_type in ("float", "double") or re.fullmatch(r"decimal\(\d+,-?\d+\)", spark_type):
        return {"type": "number"}
    if spark_type == "boolean":
        return {"type": "boolean"}
    if spark_type == "date":
        return {"type": "string", "format": "date"}
    if spark_type in ("timestamp", "timestamp_ntz"):
        return {"type": "string", "format": "date-time"}
    if spark_type == "string" or re.fullmatch(r"(var)?char\(\d+\)", spark_type):
        return {"type": "string"}
    _unsupported(spark_type)


def _nested_schema(spark_type: Mapping[str, Any]) -> dict[str, Any]:
    kind = spark_type["type"]
    if kind == "array":
        return {"type": "array", "items": json_schema(spark_type["elementType"])}
    if kind == "map" and spark_type["keyType"] == "string":
        return {"type": "object", "additionalProperties": json_schema(spark_type["valueType"])}
    if kind != "struct":
        _unsupported(kind)
    properties = {f["name"]: _field_schema(f) for f in spark_type["fields"]}
    if len(properties) < len(spark_type["fields"]):
        msg = f"a STRUCT type must have distinct field names, got {', '.join(f['name'] for f in spark_type['fields'])}"
        raise ValueError(msg)
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _field_schema(field: Mapping[str, Any]) -> dict[str, Any]:
    schema = json_schema(field["type"])
    return {"anyOf": [schema, {"type": "null"}]} if field.get("nullable", True) else schema


def _unsupported(name: str) -> NoReturn:
    msg = (
        f"an answer cannot have the type {name.upper()}; accepted: STRING, BOOLEAN, TINYINT to BIGINT, FLOAT, DOUBLE, "
        "DECIMAL, DATE, TIMESTAMP, and ARRAY, STRUCT and MAP<STRING, ...> of these"
    )
    raise ValueError(msg)
