"""Result types: DDL, JSON Schema, and the value of an answer."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pyarrow as pa
import pytest
import xgrammar
from hypothesis import given
from hypothesis import strategies as st
from spark_llm.optimizer.coerce import Misfit, coerce
from spark_llm.optimizer.ddl import parse_ddl, to_ddl
from spark_llm.optimizer.schema import json_schema

SCALARS = ["STRING", "BOOLEAN", "TINYINT", "SMALLINT", "INT", "BIGINT", "FLOAT", "DOUBLE", "DECIMAL(10,2)", "DATE"]
SCALARS += ["TIMESTAMP", "TIMESTAMP_NTZ", "VARCHAR(5)"]
NAMES = st.text("ab `_é", min_size=1, max_size=4).filter(lambda name: name.strip())


def types(scalars):
    def nested(inner):
        field = st.tuples(NAMES, inner, st.booleans())
        structs = st.lists(field, min_size=1, max_size=3, unique_by=lambda f: f[0])
        return inner.map(_array) | inner.map(_map) | structs.map(_struct)

    return st.recursive(st.sampled_from(scalars).map(parse_ddl), nested, max_leaves=4)


def _array(element):
    return {"type": "array", "elementType": element, "containsNull": True}


def _map(value):
    return {"type": "map", "keyType": "string", "valueType": value, "valueContainsNull": True}


def _struct(fields):
    named = [{"name": n, "type": t, "nullable": nullable, "metadata": {}} for n, t, nullable in fields]
    return {"type": "struct", "fields": named}


@given(types(SCALARS))
def test_ddl_round_trip(spark_type):
    assert parse_ddl(to_ddl(spark_type)) == spark_type


@given(types(SCALARS))
def test_engine_accepts_every_schema(spark_type):
    xgrammar.Grammar.from_json_schema(json.dumps(json_schema(spark_type)))


def values(spark_type):
    """JSON values of types without strings that need a format."""
    if isinstance(spark_type, str):
        integers = st.integers(-100, 100)
        return {"boolean": st.booleans(), "string": st.text(max_size=4)}.get(spark_type, integers)
    match spark_type["type"]:
        case "array":
            return st.lists(values(spark_type["elementType"]), max_size=3)
        case "map":
            return st.dictionaries(st.text(max_size=3), values(spark_type["valueType"]), max_size=2)
        case _:
            nullable = {
                f["name"]: values(f["type"]) | (st.none() if f["nullable"] else st.nothing())
                for f in spark_type["fields"]
            }
            return st.fixed_dictionaries(nullable)


structured = types(["STRING", "BOOLEAN", "INT", "BIGINT"]).filter(lambda t: not isinstance(t, str))


@given(structured.flatmap(lambda t: st.tuples(st.just(t), values(t))))
def test_values_survive_their_text(drawn):
    spark_type, value = drawn
    assert coerce(json.dumps(value), spark_type) == value


@pytest.mark.parametrize(
    ("ddl", "json_form"),
    [
        ("int", "integer"),
        ("long", "long"),
        ("decimal", "decimal(10,0)"),
        ("decimal(5)", "decimal(5,0)"),
        ("date DATE", _struct([("date", "date", True)])),
        ("score INT NOT NULL", _struct([("score", "integer", False)])),
        ("actor STRING COMMENT 'who', score INT", _struct([("actor", "string", True), ("score", "integer", True)])),
        ("STRUCT<a INT, b: ARRAY<STRING>>", _struct([("a", "integer", True), ("b", _array("string"), True)])),
        ("`struct` INT", _struct([("struct", "integer", True)])),
    ],
)
def test_ddl(ddl, json_form):
    assert parse_ddl(ddl) == json_form


@pytest.mark.parametrize("ddl", ["", "score", "a STRUCT<INT>", "INT); DROP TABLE t", "ARRAY", "1"])
def test_no_ddl(ddl):
    with pytest.raises(ValueError, match="is no type; accepted"):
        parse_ddl(ddl)


@pytest.mark.parametrize(
    "spark_type", ["binary", "variant", "interval day to second", _map("string") | {"keyType": "date"}]
)
def test_types_without_a_text(spark_type):
    with pytest.raises(ValueError, match="an answer cannot have the type"):
        json_schema(spark_type)


def test_repeated_struct_fields():
    with pytest.raises(ValueError, match="distinct field names, got a, a"):
        json_schema(parse_ddl("a INT, a INT"))


def test_struct_schema_keeps_order_and_nullability():
    schema = json_schema(parse_ddl("b INT NOT NULL, a STRING"))
    assert list(schema["properties"]) == schema["required"] == ["b", "a"]
    assert schema["properties"]["b"] == {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1}
    assert schema["properties"]["a"] == {"anyOf": [{"type": "string"}, {"type": "null"}]}
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize(
    ("text", "ddl", "value"),
    [
        (" as it is\n", "STRING", " as it is\n"),
        ("true", "BOOLEAN", True),
        ("No.", "BOOLEAN", False),
        (" 42\n", "INT", 42),
        ("42.0", "INT", 42),
        ("1e3", "BIGINT", 1000),
        ("-128", "TINYINT", -128),
        ("3", "DOUBLE", 3.0),
        ("0.1", "DECIMAL(3,2)", Decimal("0.10")),
        ("9007199254740993", "BIGINT", 9007199254740993),
        ("2024-02-29", "DATE", date(2024, 2, 29)),
        ("2024-01-01T10:00:00Z", "TIMESTAMP", datetime(2024, 1, 1, 10, tzinfo=UTC)),
        ("2024-01-01 10:00:00", "TIMESTAMP", datetime(2024, 1, 1, 10, tzinfo=timezone(timedelta(hours=2)))),
        ("2024-01-01T10:00:00", "TIMESTAMP_NTZ", datetime(2024, 1, 1, 10)),
        ('{"a": null}', "a INT, b STRING", {"a": None, "b": None}),
        ('{"d": "2024-02-29"}', "d DATE", {"d": date(2024, 2, 29)}),
        ("abcde", "VARCHAR(5)", "abcde"),
    ],
)
def test_answers_that_fit(text, ddl, value):
    found = coerce(text, parse_ddl(ddl), timezone(timedelta(hours=2)))
    assert found == value
    assert type(found) is type(value)
    pa.array([found])


@pytest.mark.parametrize(
    ("text", "ddl"),
    [
        ("maybe", "BOOLEAN"),
        ("the answer is 4", "INT"),
        ("4.5", "INT"),
        ("true", "INT"),
        ("null", "INT"),
        ("128", "TINYINT"),
        ("2147483648", "INT"),
        ("1e999999999", "INT"),
        ("1e400", "DOUBLE"),
        ("NaN", "DOUBLE"),
        ("true", "DOUBLE"),
        ("100", "DECIMAL(3,2)"),
        ("9.999", "DECIMAL(3,2)"),
        ("yesterday", "DATE"),
        ("2024-01-01T10:00:00Z", "TIMESTAMP_NTZ"),
        ("abcdef", "VARCHAR(5)"),
        ('{"a": 1', "a INT"),
        ('{"a": 1} {}', "a INT"),
        ('{"a": 1, "c": 2}', "a INT"),
        ('{"a": 1, "a": 2}', "a INT"),
        ('{"a": "1"}', "a INT"),
        ('{"b": 1}', "a INT NOT NULL, b INT"),
        ("[1, null]", "ARRAY<INT>"),
        ("[" * 100_000, "ARRAY<INT>"),
        ("[]", "a INT"),
        ("{}", "ARRAY<INT>"),
    ],
)
def test_answers_that_do_not_fit(text, ddl):
    with pytest.raises(Misfit, match="does not parse into") as caught:
        coerce(text, parse_ddl(ddl))
    assert text not in str(caught.value) or text in to_ddl(parse_ddl(ddl))
