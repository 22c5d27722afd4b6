"""The resident planner over its pipe."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys

import pytest
from spark_llm.optimizer import serve
from spark_llm.optimizer.core import CallSpec, Field

FIELDS = (Field("review"), Field("movie"))
SPEC = json.loads(CallSpec("llm", "Is it good?", FIELDS).to_json())


def frame(request: object) -> bytes:
    body = request if isinstance(request, bytes) else json.dumps(request).encode()
    return struct.pack(">I", len(body)) + body


def unframe(stream: bytes) -> list[dict]:
    found = []
    while stream:
        length = struct.unpack(">I", stream[:4])[0]
        found.append(json.loads(stream[4 : 4 + length]))
        stream = stream[4 + length :]
    return found


def ask(*requests: object, tail: bytes = b"") -> list[dict]:
    answers = io.BytesIO()
    serve.serve(io.BytesIO(b"".join(map(frame, requests)) + tail), answers)
    return unframe(answers.getvalue())


def plan(**params: object) -> dict:
    return {"id": 7, "method": "plan", "params": {"calls": [SPEC], **params}}


def test_plan_orders_fields_and_estimates():
    sample = {"columns": [[[f"review {i}" for i in range(40)], ["Alien", "Brazil"] * 20]]}
    [answer] = ask(plan(sample=sample, rows_estimate=4000, default_parallelism=2, sql="SELECT 1"))
    [planned] = answer["result"]["calls"]
    assert answer["id"] == 7
    assert planned["order"] == [1, 0]
    assert planned["reasons"] == ["fields by shared text: movie (2 distinct), review (4000 distinct)"]
    estimate = planned["estimate"]
    assert (estimate["rows"], estimate["distinct"]) == (4000, 4000)
    assert 0 < estimate["cached_tokens"] < estimate["prompt_tokens"]


def test_plan_without_rows_keeps_the_order_and_says_why():
    for sample in (None, {"columns": [[[], []]]}):
        [answer] = ask(plan(sample=sample))
        [planned] = answer["result"]["calls"]
        assert planned == {"order": [0, 1], "reasons": ["fields as written: no sample of the input"], "estimate": {}}


def test_plan_keeps_a_fixed_order():
    fixed = {**SPEC, "options": {"field_order": "fixed"}}
    [answer] = ask(plan(calls=[fixed], sample={"columns": [[["a", "b"], ["x", "x"]]]}))
    [planned] = answer["result"]["calls"]
    assert planned["order"] == [0, 1]
    assert planned["reasons"] == ["fields as written: field_order => 'fixed'"]


@pytest.mark.parametrize(
    ("request_", "condition"),
    [
        (b"\xff", "PLANNER_BAD_REQUEST"),
        (b"{", "PLANNER_BAD_REQUEST"),
        (b"", "PLANNER_BAD_REQUEST"),
        ([], "PLANNER_BAD_REQUEST"),
        ({"id": 1, "method": "halt"}, "PLANNER_BAD_REQUEST"),
        ({"id": 1, "method": "plan"}, "PLANNER_BAD_REQUEST"),
        ({"id": 1, "method": "plan", "params": {}}, "PLANNER_BAD_REQUEST"),
        ({"id": 1, "method": "check", "params": {"call": {**SPEC, "options": {"x": 1}}}}, "LLM_UNKNOWN_OPTION"),
        (
            {"id": 1, "method": "plan", "params": {"calls": [SPEC], "sample": {"columns": [[["secret"]]]}}},
            "PLANNER_FAILED",
        ),
    ],
)
def test_bad_frames_give_an_error_and_the_next_one_is_answered(request_, condition):
    bad, good = ask(request_, {"id": 2, "method": "check", "params": {"call": SPEC}})
    assert bad["error"]["condition"] == condition
    assert "secret" not in json.dumps(bad)
    assert good == {"id": 2, "result": {}}


def test_end_inside_a_frame_ends_it():
    assert ask({"id": 2, "method": "check", "params": {"call": SPEC}}, tail=struct.pack(">I", 9) + b"{}")[1:] == []


def test_too_long_a_frame_is_skipped(monkeypatch):
    monkeypatch.setattr(serve, "MAX_FRAME", 1000)
    bad, good = ask(b" " * 1001, {"id": 2, "method": "check", "params": {"call": SPEC}})
    assert bad["error"]["condition"] == "PLANNER_BAD_REQUEST"
    assert good["id"] == 2


def test_process_answers_and_ends_with_its_input():
    request = frame({"id": 1, "method": "check", "params": {"call": SPEC}})
    done = subprocess.run(
        [sys.executable, "-m", "spark_llm.optimizer.serve"], input=request, capture_output=True, timeout=60
    )
    assert done.returncode == 0
    assert unframe(done.stdout) == [{"id": 1, "result": {}}]


def test_planner_loads_neither_torch_nor_pyspark_nor_sqlglot():
    imports = "import sys, spark_llm.optimizer.serve, spark_llm.optimizer.plan"
    code = f"{imports}; print(*{{'torch', 'pyspark', 'sqlglot'}} & {{*sys.modules}})"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60).stdout.strip() == b""
    )
