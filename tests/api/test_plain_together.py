"""`llm_all` and `llm_first`, what `spark_llm.sql` makes of predicates without the extension: rows and counts."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from spark_llm.errors import LlmError
from spark_llm.plain import answer, answer_together
from tests.conftest import stub_conf

ROWS = 300
TEXTS = pa.array([f"text {i % 250}" for i in range(ROWS)])
RECORD = pa.StructArray.from_arrays([TEXTS], ["review"])
GOOD = {"function": "llm_filter", "constants": ["Good?"], "test": ["in", [True]]}
KIND = {"function": "llm_classify", "constants": [["a", "b", "c", "d"]], "test": ["not in", ["a", "b"]]}


def whole(text: str) -> pa.Array:
    return pa.array([text] * ROWS)


@pytest.fixture
def passing(calls):
    """Rows that pass both predicates when each is asked alone."""
    conf = stub_conf(calls.folder)
    labels = pa.array([KIND["constants"][0]] * ROWS)
    good = pa.concat_arrays(list(answer("llm_filter", conf, [(whole("Good?"), RECORD)]))).to_pylist()
    kind = pa.concat_arrays(list(answer("llm_classify", conf, [(RECORD, labels)]))).to_pylist()
    calls.reset()
    return [i for i in range(ROWS) if good[i] and kind[i] not in ("a", "b")]


def run(calls, name, asked, *arguments) -> list[int]:
    pieces = answer_together(name, stub_conf(calls.folder), [(whole(json.dumps(asked)), *arguments)])
    values = [value for piece in pieces for value in piece.to_pylist()]
    assert len(values) == ROWS
    return [i for i, value in enumerate(values) if value]


def test_all(calls, passing):
    assert run(calls, "llm_all", {"terms": [GOOD, KIND]}, RECORD, RECORD) == passing
    assert calls.count == len(set(calls.lines())) < 2 * 250


def test_first(calls, passing):
    keep = pa.array([i % 2 == 0 if i % 3 else None for i in range(ROWS)])
    kept = [i for i in passing if keep[i].as_py()]
    found = run(calls, "llm_first", {"terms": [GOOD, KIND], "limit": 4}, keep, RECORD, RECORD)
    assert found == kept[:4]
    assert calls.count < 60


def test_terms_must_be_constant(calls):
    changing = pa.array([json.dumps({"terms": [GOOD], "limit": i}) for i in range(ROWS)])
    with pytest.raises(LlmError, match="LLM_BAD_OPTION"):
        list(answer_together("llm_all", stub_conf(calls.folder), [(changing, RECORD)]))
