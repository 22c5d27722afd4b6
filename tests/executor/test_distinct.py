"""Distinct tuples against a dictionary of Python tuples, and UTF-8 checks."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.executor.distinct import distinct_tuples, is_utf8

VALUES = st.one_of(st.none(), st.sampled_from(["", "a", "b", "A", "a\u0301", "á", "null"]), st.text(max_size=3))


@given(st.integers(1, 4).flatmap(lambda n: st.lists(st.tuples(*[VALUES] * n), max_size=40)))
def test_numbers_tuples_by_first_occurrence(rows):
    columns = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]
    distinct = distinct_tuples(columns, len(rows))
    seen: dict[tuple, int] = {}
    expected = [seen.setdefault(row, len(seen)) for row in rows]
    assert distinct.tuple_of.tolist() == expected
    assert [rows[i] for i in distinct.first] == list(seen)


def test_no_column_is_one_tuple():
    assert distinct_tuples([], 5).tuple_of.tolist() == [0] * 5
    assert len(distinct_tuples([], 0).first) == 0


def test_many_columns_of_many_values_do_not_collide():
    columns = [pa.array([f"{c}-{r}" for r in range(3000)]) for c in range(12)]
    assert len(distinct_tuples(columns, 3000).first) == 3000


def test_invalid_bytes_are_found():
    raw = pa.array([b"ok", b"\xff\xfe", None, "é".encode()], pa.binary())
    column = pa.Array.from_buffers(pa.string(), 4, raw.buffers(), null_count=1)
    assert is_utf8(column).tolist() == [True, False, True, True]
