"""Random calls and rows."""

from __future__ import annotations

import json

import pyarrow as pa
from hypothesis import strategies as st
from spark_llm.optimizer.columns import Column, encode
from spark_llm.optimizer.core import CallSpec, Field

texts = st.one_of(st.none(), st.sampled_from(["", "a", "b", "long " * 9, '"{x}"\n\0']), st.text(max_size=8))
scalars = st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.text(max_size=4))
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
)
names = st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=5, unique=True)


@st.composite
def calls_with_rows(draw):
    """A call of llm() and its rows: one list of Python values per field, `json` ones as parsed."""
    fields = tuple(Field(name, draw(st.sampled_from(["text", "json"]))) for name in draw(names))
    count = draw(st.integers(0, 6))
    columns = [draw(st.lists(texts if f.kind == "text" else values, min_size=count, max_size=count)) for f in fields]
    return CallSpec("llm", "Sum up.", fields), columns


def as_arrays(spec, columns) -> list[pa.Array]:
    """Values as Spark sends them: texts raw, all else as `to_json` of a struct with the field `v`."""
    arrays = []
    for field, column in zip(spec.fields, columns, strict=True):
        rendered = column if field.kind == "text" else [_to_json(value) for value in column]
        arrays.append(pa.array(rendered, pa.string()))
    return arrays


def _to_json(value) -> str | None:
    return None if value is None else json.dumps({"v": value}, ensure_ascii=False, separators=(",", ":"))


def tables(max_rows: int = 12, max_columns: int = 5):
    """Columns of few distinct values, so that groups and dependencies occur."""
    cell = st.one_of(st.none(), st.sampled_from(["", "x", "yy", "zzzzzz", "zzzzzy"]))
    return st.integers(1, max_columns).flatmap(
        lambda m: st.lists(st.tuples(*[cell] * m), min_size=1, max_size=max_rows).map(
            lambda rows: list(zip(*rows, strict=True))
        )
    )


def encoded(columns) -> list[Column]:
    """Columns whose cells begin differently, so that two cells share text only within a column."""
    arrays = [pa.array(list(column), pa.string()) for column in columns]
    return [encode(array, f"{chr(97 + i)}: ", _quoted) for i, array in enumerate(arrays)]


def _quoted(text: str | None) -> str:
    return "null" if text is None else text + "'"
