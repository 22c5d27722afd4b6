"""Spark's JSON form of a type and its DDL text, each from the other."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlglot import exp

SparkType = str | Mapping[str, Any]
"""Spark's JSON form of a type: a name such as "integer", or an object for ARRAY, MAP and STRUCT."""

_JSON_NAMES = {
    "TEXT": "string",
    "BOOLEAN": "boolean",
    "TINYINT": "byte",
    "SMALLINT": "short",
    "INT": "integer",
    "BIGINT": "long",
    "FLOAT": "float",
    "DOUBLE": "double",
    "DATE": "date",
    "TIMESTAMP": "timestamp",
    "TIMESTAMPTZ": "timestamp",
    "TIMESTAMPLTZ": "timestamp",
    "TIMESTAMPNTZ": "timestamp_ntz",
    "BINARY": "binary",
    "VARIANT": "variant",
}
_DDL_NAMES = {"byte": "TINYINT", "short": "SMALLINT", "integer": "INT", "long": "BIGINT"}


def parse_ddl(ddl: str) -> SparkType:
    """Spark's JSON form of a type written as DDL.

    Parameters
    ----------
    ddl : str
        A type (`'INT'`, `'STRUCT<a: INT>'`) or a list of columns (`'actor STRING, score INT'`), which is a STRUCT.

    Raises
    ------
    ValueError
        The text is no type that Spark knows.

    Examples
    --------
    >>> parse_ddl("ARRAY<INT>")
    {'type': 'array', 'elementType': 'integer', 'containsNull': True}
    >>> [f["name"] for f in parse_ddl("actor STRING, score INT NOT NULL")["fields"]]
    ['actor', 'score']
    """
    return _parse(ddl.strip())


@cache
def _parse(ddl: str) -> SparkType:
    from sqlglot import ErrorLevel, exp
    from sqlglot.errors import SqlglotError

    # A list of columns is tried first: the parser reads `date DATE` as the type DATE.
    for text in (f"STRUCT<{ddl}>", ddl):
        try:
            parsed = exp.DataType.build(text, dialect="spark", error_level=ErrorLevel.RAISE)
        except SqlglotError:
            continue
        if text == ddl or all(isinstance(c, exp.ColumnDef) and c.name for c in parsed.expressions):
            return _to_json(parsed, ddl)
    raise _no_type(ddl)


def _no_type(ddl: str) -> ValueError:
    return ValueError(
        f"'{ddl}' is no type; accepted: a type such as INT or STRUCT<a: INT>, or columns such as 'a INT, b STRING'"
    )


def _to_json(parsed: exp.DataType, ddl: str) -> SparkType:
    name, inner = getattr(parsed.this, "name", ""), parsed.expressions
    if name == "STRUCT" and inner and all(column.args.get("kind") for column in inner):
        return {"type": "struct", "fields": [_field(column, ddl) for column in inner]}
    if name in ("ARRAY", "LIST") and len(inner) == 1:
        return {"type": "array", "elementType": _to_json(inner[0], ddl), "containsNull": True}
    if name == "MAP" and len(inner) == 2:
        key, value = (_to_json(kind, ddl) for kind in inner)
        return {"type": "map", "keyType": key, "valueType": value, "valueContainsNull": True}
    if name == "DECIMAL":
        precision, scale = [p.name for p in inner] + ["10", "0"][len(inner) :]
        return f"decimal({precision},{scale})"
    if name in ("CHAR", "VARCHAR") and len(inner) == 1:
        return f"{name.lower()}({inner[0].name})"
    if name not in _JSON_NAMES:
        raise _no_type(ddl)
    return _JSON_NAMES[name]


def _field(column: exp.ColumnDef, ddl: str) -> dict[str, Any]:
    from sqlglot import exp

    nullable = not any(isinstance(c.kind, exp.NotNullColumnConstraint) for c in column.constraints)
    return {"name": column.name, "type": _to_json(column.args["kind"], ddl), "nullable": nullable, "metadata": {}}


def to_ddl(spark_type: SparkType) -> str:
    """The DDL of a type given in Spark's JSON form.

    Examples
    --------
    >>> to_ddl({"type": "struct", "fields": [{"name": "a b", "type": "integer", "nullable": False, "metadata": {}}]})
    'STRUCT<`a b`: INT NOT NULL>'
    """
    if not isinstance(spark_type, Mapping):
        return _DDL_NAMES.get(spark_type, spark_type.upper())
    match spark_type["type"]:
        case "array":
            return f"ARRAY<{to_ddl(spark_type['elementType'])}>"
        case "map":
            return f"MAP<{to_ddl(spark_type['keyType'])}, {to_ddl(spark_type['valueType'])}>"
        case "struct":
            return f"STRUCT<{', '.join(map(_field_ddl, spark_type['fields']))}>"
        case other:
            return str(other).upper()


def _field_ddl(field: Mapping[str, Any]) -> str:
    name = (
        field["name"] if re.fullmatch(r"[A-Za-z_]\w*", field["name"]) else "`" + field["name"].replace("`", "``") + "`"
    )
    return f"{name}: {to_ddl(field['type'])}{'' if field.get('nullable', True) else ' NOT NULL'}"
