"""Renders field values to text by the rule of Spark's `to_json`, for calls that no JVM rule has rendered.

Strings stay raw; every other type becomes JSON text with NULL fields kept and times in the session's zone, so that a
plain registered call asks the same prompts as a planned one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from spark_llm.errors import LlmError
from spark_llm.optimizer.core import Field

Renderer = Callable[[Any], str]


def render_column(name: str, column: pa.Array, function: str = "llm") -> tuple[Field, pa.Array]:
    """A field and its values as strings; NULL stays NULL.

    Raises
    ------
    LlmError
        `LLM_BINARY_FIELD` for binary data, also inside structs, arrays and maps.
    """
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return Field(name, "text"), column.cast(pa.string())
    if pa.types.is_null(column.type):
        return Field(name, "json"), column.cast(pa.string())
    try:
        render = _renderer(column.type)
    except TypeError:
        raise LlmError("LLM_BINARY_FIELD", field=name, function=function) from None
    return Field(name, "json"), pa.array([None if v is None else render(v) for v in column.to_pylist()], pa.string())


def _renderer(kind: pa.DataType) -> Renderer:
    if pa.types.is_struct(kind):
        return _struct_renderer(kind)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        element = _or_null(_renderer(kind.value_type))
        return lambda value: "[" + ",".join(map(element, value)) + "]"
    if pa.types.is_map(kind):
        value_of = _or_null(_renderer(kind.item_type))
        return lambda value: "{" + ",".join(f"{_text(str(k))}:{value_of(v)}" for k, v in value) + "}"
    return _scalar_renderer(kind)


def _struct_renderer(kind: pa.StructType) -> Renderer:
    members = [(_text(f.name), f.name, _or_null(_renderer(f.type))) for f in kind]
    return lambda value: "{" + ",".join(f"{key}:{render(value[name])}" for key, name, render in members) + "}"


def _scalar_renderer(kind: pa.DataType) -> Renderer:
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        raise TypeError
    if pa.types.is_boolean(kind):
        return lambda value: "true" if value else "false"
    if pa.types.is_integer(kind) or pa.types.is_decimal(kind):
        return str
    if pa.types.is_float32(kind):
        return lambda value: _java_double(value, np.format_float_scientific(np.float32(value), unique=True))
    if pa.types.is_floating(kind):
        return lambda value: _java_double(value, np.format_float_scientific(value, unique=True))
    if pa.types.is_timestamp(kind):
        return _timestamp_with_zone if kind.tz else _timestamp
    return lambda value: _text(str(value))


def _or_null(render: Renderer) -> Renderer:
    return lambda value: "null" if value is None else render(value)


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _timestamp(value: Any) -> str:
    return _text(value.isoformat(timespec="milliseconds"))


def _timestamp_with_zone(value: Any) -> str:
    shown = value.isoformat(timespec="milliseconds")
    return _text(shown[:-6] + "Z" if shown.endswith("+00:00") else shown)


def _java_double(value: float, scientific: str) -> str:
    """`Double.toString`: plain from 1e-3 to 1e7, else with an exponent; never without a digit after the point."""
    if not math.isfinite(value):
        return '"NaN"' if math.isnan(value) else ('"Infinity"' if value > 0 else '"-Infinity"')
    if value == 0:
        return "-0.0" if math.copysign(1, value) < 0 else "0.0"
    mantissa, exponent = scientific.split("e")
    if 1e-3 <= abs(value) < 1e7:
        digits = mantissa.replace(".", "").replace("-", "")
        return ("-" if value < 0 else "") + _plain(digits, int(exponent))
    return f"{mantissa}{'0' if mantissa.endswith('.') else ''}E{int(exponent)}"


def _plain(digits: str, exponent: int) -> str:
    if exponent < 0:
        return "0." + "0" * (-exponent - 1) + digits
    whole = digits[: exponent + 1].ljust(exponent + 1, "0")
    return f"{whole}.{digits[exponent + 1 :] or '0'}"
