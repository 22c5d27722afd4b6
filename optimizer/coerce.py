"""The value that an answer's text stands for."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, tzinfo
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

from spark_llm.optimizer.ddl import SparkType, to_ddl
from spark_llm.optimizer.schema import INTEGER_BITS, json_schema

_DECIMAL = re.compile(r"decimal\((\d+),(-?\d+)\)")
_BOOLEANS = {"true": True, "yes": True, "false": False, "no": False}


class Misfit(ValueError):
    """An answer that is no value of its type. The message names the type, never the answer."""


def coerce(text: str, spark_type: SparkType, zone: tzinfo = UTC) -> object:
    """The value that an answer stands for.

    Parameters
    ----------
    text : str
        The model's whole answer.
    spark_type : object
        Spark's JSON form of the type.
    zone : tzinfo
        Time zone of TIMESTAMP values that carry none.

    Returns
    -------
    object
        str, bool, int, float, `Decimal`, `date`, `datetime`, or lists and dicts of these; what pyarrow takes.

    Raises
    ------
    Misfit
        The answer is no value of the type.

    Examples
    --------
    >>> coerce("Yes", "boolean"), coerce('{"a": [1, 2]}', {"type": "map", "keyType": "string", "valueType":
    ...     {"type": "array", "elementType": "integer", "containsNull": False}})
    (True, {'a': [1, 2]})
    """
    if isinstance(spark_type, str) and json_schema(spark_type)["type"] == "string":
        return _scalar(spark_type, text if spark_type == "string" else text.strip(), zone)
    if spark_type == "boolean":
        return _value(spark_type, _BOOLEANS.get(text.strip().strip(".").lower()), zone)
    try:
        parsed = json.loads(text, parse_float=Decimal, parse_constant=_reject, object_pairs_hook=_distinct)
    except (ValueError, RecursionError):
        _misfit(spark_type)
    return _value(spark_type, parsed, zone)


def _reject(constant: str) -> NoReturn:
    raise Misfit(constant)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        msg = "the answer repeats a key"
        raise Misfit(msg)
    return found


def _misfit(spark_type: SparkType) -> NoReturn:
    msg = f"the answer does not parse into {to_ddl(spark_type)}"
    raise Misfit(msg) from None


def _value(spark_type: SparkType, value: object, zone: tzinfo) -> object:
    """`value`, parsed JSON, as a value of the type."""
    if not isinstance(spark_type, Mapping):
        return _scalar(spark_type, value, zone)
    if spark_type["type"] == "array" and isinstance(value, list):
        return [_value(spark_type["elementType"], item, zone) for item in value]
    if spark_type["type"] == "map" and isinstance(value, dict):
        return {key: _value(spark_type["valueType"], item, zone) for key, item in value.items()}
    if spark_type["type"] == "struct" and isinstance(value, dict):
        fields = {f["name"]: f for f in spark_type["fields"]}
        if value.keys() <= fields.keys():
            return {name: _field_value(f, value.get(name), zone) for name, f in fields.items()}
    _misfit(spark_type)


def _field_value(field: Mapping[str, Any], value: object, zone: tzinfo) -> object:
    if value is None and field.get("nullable", True):
        return None
    return _value(field["type"], value, zone)


def _scalar(spark_type: str, value: object, zone: tzinfo) -> object:
    convert = _CONVERT.get(spark_type.split("(")[0])
    try:
        if convert is not None and (result := convert(spark_type, value, zone)) is not None:
            return result
    except (ValueError, OverflowError, InvalidOperation):
        _misfit(spark_type)
    _misfit(spark_type)


def _integer(spark_type: str, value: object, _zone: tzinfo) -> int | None:
    bound = 2 ** (INTEGER_BITS[spark_type] - 1)
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or not -bound <= value < bound:
        return None
    return int(value) if value == int(value) else None


def _float(_type: str, value: object, _zone: tzinfo) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    return number if math.isfinite(number := float(value)) else None


def _decimal(spark_type: str, value: object, _zone: tzinfo) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    precision, scale = map(int, _DECIMAL.fullmatch(spark_type).groups())  # type: ignore[union-attr]
    number = Decimal(value)
    if abs(number) >= Decimal(10) ** (precision - scale):
        return None
    rounded = Decimal(round(number.scaleb(scale))).scaleb(-scale)
    return rounded if abs(rounded) < Decimal(10) ** (precision - scale) else None


def _text(spark_type: str, value: object, _zone: tzinfo) -> str | None:
    limit = int(spark_type.split("(")[1][:-1]) if "(" in spark_type else math.inf
    return value if isinstance(value, str) and len(value) <= limit else None


def _timestamp(spark_type: str, value: object, zone: tzinfo) -> datetime | None:
    if not isinstance(value, str):
        return None
    moment = datetime.fromisoformat(value)
    if spark_type == "timestamp_ntz":
        return moment if moment.tzinfo is None else None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)


_CONVERT: Mapping[str, Callable[[str, Any, tzinfo], Any]] = {
    **dict.fromkeys(INTEGER_BITS, _integer),
    **dict.fromkeys(("float", "double"), _float),
    **dict.fromkeys(("string", "char", "varchar"), _text),
    **dict.fromkeys(("timestamp", "timestamp_ntz"), _timestamp),
    "decimal": _decimal,
    "boolean": lambda _t, v, _z: v if isinstance(v, bool) else None,
    "date": lambda _t, v, _z: date.fromisoformat(v) if isinstance(v, str) else None,
}
