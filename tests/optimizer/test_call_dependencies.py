"""Dependencies that a statement's text brings into the order of a planned call's fields."""

from __future__ import annotations

import json

import pytest
from spark_llm.optimizer.call_dependencies import call_dependencies
from spark_llm.optimizer.core import CallSpec, Field
from spark_llm.optimizer.serve import answer

DECLARED = {"spark.llm.dependencies": json.dumps({"movies": ["movie_id -> *", "title -> info"]})}
SQL = "SELECT llm('Good?', review, m.info, m.title) FROM reviews r JOIN movies m ON r.movie_id = m.movie_id"


def spec(*names: str, conf=DECLARED, **options) -> CallSpec:
    return CallSpec("llm", "Good?", tuple(map(Field, names)), options, conf=conf)


def test_fields_that_are_determined_follow_at_once():
    call = spec("review", "info", "title")
    assert call_dependencies(call, SQL) == call_dependencies(call, f"EXPLAIN FORMATTED {SQL}") == (((2,), (1,)),)
    titles = [f"a title of {i % 40} words" for i in range(200)]
    columns = [
        [f"a long review, number {i // 2}, of some film" for i in range(200)],
        ["i" * (i % 40) for i in range(200)],
        titles,
    ]
    params = {"calls": [json.loads(call.to_json())], "sample": {"columns": [columns]}, "sql": SQL}

    def order(request) -> list[int]:
        return answer(json.dumps({"method": "plan", "params": request}).encode())["result"]["calls"][0]["order"]

    planned, alone = order(params), order({**params, "sql": None})
    assert planned.index(1) == planned.index(2) + 1
    assert sorted(planned) == sorted(alone) == [0, 1, 2]


@pytest.mark.parametrize(
    ("call", "sql"),
    [
        (spec("review", "info", "title", conf={}), SQL),
        (spec("review", "info", "title"), ""),
        (spec("review", "info", "title"), "not ( SQL"),
        (spec("other", "info", "title"), SQL),
        (spec("review", "info", "title"), SQL.replace("movies", "films")),
    ],
)
def test_no_dependencies_where_the_text_does_not_tell(call, sql):
    assert call_dependencies(call, sql) == ()


def test_a_bad_declaration_is_the_users_error():
    call = spec("a", conf={"spark.llm.dependencies": "movies: id"})
    params = {"calls": [json.loads(call.to_json())], "sql": SQL}
    error = answer(json.dumps({"method": "plan", "params": params}).encode())["error"]
    assert error["condition"] == "LLM_BAD_CONF"


def test_a_conjunction_is_estimated_term_by_term():
    from spark_llm.optimizer.core import Term

    whole = CallSpec(
        "llm_filter", "", (Field("a"), Field("b")), terms=(Term(spec("a"), (0,)), Term(spec("b"), (1,))), conf=DECLARED
    )
    columns = [[f"text {i}" for i in range(50)], ["same"] * 50]
    params = {"calls": [json.loads(whole.to_json())], "sample": {"columns": [columns]}}
    [plan] = answer(json.dumps({"method": "plan", "params": params}).encode())["result"]["calls"]
    assert plan["estimate"]["distinct"] == 50
    assert sorted(plan["order"]) == [0, 1]
    assert plan["estimate"]["prompt_tokens"] > 50 * len("Good?") / 4


def test_declared_dependencies_act_without_a_sample():
    """The determined field leads what determines it, and the field of which nothing is known follows."""
    params = {
        "calls": [json.loads(spec("review", "title", "info").to_json())],
        "sql": SQL.replace("m.info, m.title", "m.title, m.info"),
    }
    [plan] = answer(json.dumps({"method": "plan", "params": params}).encode())["result"]["calls"]
    assert list(plan["order"]) == [2, 1, 0]
    assert list(plan["reasons"]) == ["fields by declared dependencies: info, title, review"]
    params["calls"] = [json.loads(spec("review", "title", "info", field_order="fixed").to_json())]
    [plan] = answer(json.dumps({"method": "plan", "params": params}).encode())["result"]["calls"]
    assert list(plan["order"]) == [0, 1, 2]
