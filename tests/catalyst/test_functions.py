"""What the functions accept, the types they have, and the names and values that the model sees."""

from __future__ import annotations

import json
import re

import pytest
from pyspark.errors import AnalysisException

from spark_llm.errors import error_conditions
from tests.conftest import stub_conf

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def echo(asking):
    """The `asking` session with an engine that answers with the prompt itself."""
    args = stub_conf(asking.calls.folder, echo=True)["spark.llm.engine.args"]
    before = asking.spark.conf.get("spark.llm.engine.args")
    asking.spark.conf.set("spark.llm.engine.args", args)
    yield asking
    asking.spark.conf.set("spark.llm.engine.args", before)


def record(echo, query: str) -> dict:
    """The record that the model saw in a query's only answer."""
    [[prompt]], _ = echo.rows(query)
    return json.loads(prompt[prompt.index("{") :])


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        ("llm('p', t)", "string"),
        ("llm('p', t, returns => 'INT')", "int"),
        ("llm('p', t, returns => 'a INT, b ARRAY<STRING>')", "struct<a:int,b:array<string>>"),
        ("llm_filter('p', t)", "boolean"),
        ("llm_classify(t, array('a', 'b'))", "string"),
        ("llm_extract(t, 'actor STRING, score INT')", "struct<actor:string,score:int>"),
        (
            "llm_filter('p', t, on_error => 'struct')",
            "struct<value:boolean,error:struct<condition:string,message:string,attempts:int>>",
        ),
    ],
)
def test_type(asking, call, kind):
    assert asking.spark.sql(f"SELECT {call} AS x FROM v").dtypes == [("x", kind)]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("SELECT llm('p', *) FROM v LIMIT 1", ["id", "g", "t"]),
        ("SELECT llm('p', b.*, a.t) FROM v a JOIN v b ON a.id = b.id LIMIT 1", ["id", "g", "b.t", "a.t"]),
        ("SELECT llm('p', upper(t), g, id + 1) FROM v LIMIT 1", ["field_1", "g", "field_3"]),
        ("SELECT llm('p', s.a, s.b) FROM (SELECT struct(id AS a, t AS b) AS s FROM v) LIMIT 1", ["a", "b"]),
        ("SELECT llm('p', t, t) FROM v LIMIT 1", ["t", "t_2"]),
        ("SELECT llm('p', renamed) FROM (SELECT concat(t, '!') AS renamed FROM v) LIMIT 1", ["renamed"]),
        ("SELECT llm(concat('Look: ', t), g) FROM v LIMIT 1", ["t", "g"]),
        ("SELECT llm('h', g) FROM v GROUP BY g HAVING llm('h', g) IS NOT NULL LIMIT 1", ["g"]),
    ],
)
def test_names_that_the_model_sees(echo, query, names):
    assert list(record(echo, query)) == names


def test_alias_of_the_dataframe_api_is_the_name(echo):
    from pyspark.sql import functions as F

    options = F.call_function("llm_options", F.lit('{"field_order": "fixed"}'))
    call = F.call_function("llm", F.lit("p"), F.col("t").alias("review"), F.col("g"), options)
    [[prompt]] = echo.spark.table("v").limit(1).select(call).collect()
    assert list(json.loads(prompt[prompt.index("{") :])) == ["review", "g"]


def test_values_that_the_model_sees(echo):
    values = {
        "n": ("1", 1),
        "d": ("1.50", 1.5),
        "flag": ("true", True),
        "day": ("DATE '2024-05-06'", "2024-05-06"),
        "at": ("TIMESTAMP '2024-05-06 07:08:09'", "2024-05-06T07:08:09.000Z"),
        "st": ("named_struct('v', 1, 'w', NULL)", {"v": 1, "w": None}),
        "items": ("array('a', NULL)", ["a", None]),
        "m": ("map('k', 1)", {"k": 1}),
        "var": ("""parse_json('{"a": [1]}')""", {"a": [1]}),
        "text": ("'say \"hi\"'", 'say "hi"'),
        "nothing": ("CAST(NULL AS INT)", None),
    }
    columns = ", ".join(f"{expression} AS {name}" for name, (expression, _) in values.items())
    assert record(echo, f"SELECT llm('p', *) FROM (SELECT {columns})") == {n: seen for n, (_, seen) in values.items()}


def test_constant_head_of_a_prompt_is_shared(echo):
    [[prompt]], _ = echo.rows("SELECT llm('Translate: ' || t) FROM v LIMIT 1")
    assert prompt == "Translate: t0"


def test_nothing_is_asked_about_nothing(asking):
    rows, asked = asking.rows("SELECT llm('p', a, b) FROM VALUES (CAST(NULL AS INT), CAST(NULL AS STRING)) AS x(a, b)")
    assert (rows[0][0], asked) == (None, 0)


def test_options_from_json_equal_named_ones(asking):
    query = "SELECT llm('p', g, max_tokens => 64) = llm('p', g, llm_options('{\"max_tokens\": 64}')) FROM v"
    rows, asked = asking.rows(query)
    assert {row[0] for row in rows} == {True}
    assert asked == 10


def test_sampling_with_a_seed_is_deterministic_and_without_asks_every_row(asking):
    rows, asked = asking.rows("SELECT llm('p', g, temperature => 1, seed => 3) FROM v")
    assert (len(set(rows)), asked) == (10, 10)
    plan = asking.spark.sql("SELECT llm('p', g, temperature => 1) FROM v")._jdf.queryExecution().optimizedPlan()
    assert "Join" not in plan.toString()


@pytest.mark.parametrize(
    ("query", "condition", "detail"),
    [
        ("SELECT llm() FROM v", "LLM_MALFORMED_CALL", "the prompt is missing"),
        ("SELECT llm(3, t) FROM v", "LLM_MALFORMED_CALL", "must be a STRING, got INT"),
        ("SELECT llm(NULL || 'x', t) FROM v", "LLM_MALFORMED_CALL", "the prompt is NULL"),
        ("SELECT llm('p', t, tone => 'kind') FROM v", "LLM_UNKNOWN_OPTION", "accepted: model, max_tokens"),
        ("SELECT llm_filter('p', t, max_tokens => 3) FROM v", "LLM_UNKNOWN_OPTION", "'max_tokens'"),
        ("SELECT llm('p', t, max_tokens => 'x') FROM v", "LLM_BAD_OPTION", 'a constant INT >= 1, got "x"'),
        ("SELECT llm('p', t, max_tokens => 0) FROM v", "LLM_BAD_OPTION", "got 0"),
        ("SELECT llm('p', t, max_tokens => id) FROM v", "LLM_BAD_OPTION", "got the expression v.id"),
        ("SELECT llm('p', t, top_p => 1.5) FROM v", "LLM_BAD_OPTION", ">= 0 and <= 1"),
        ("SELECT llm('p', t, on_error => 'skip') FROM v", "LLM_BAD_OPTION", "one of 'null', 'fail', 'struct'"),
        ("SELECT llm('p', t, returns => 'INTERVAL DAY') FROM v", "LLM_BAD_OPTION", "a constant SQL type of STRING"),
        ("SELECT llm('p', t, choices => array('a'), regex => 'a') FROM v", "LLM_MALFORMED_CALL", "exclude each other"),
        ("SELECT llm('p', t, unordered => array('z')) FROM v", "LLM_UNKNOWN_FIELD", "fields: t"),
        ("SELECT llm_classify(t) FROM v", "LLM_MALFORMED_CALL", "ARRAY<STRING> of labels"),
        ("SELECT llm_classify(t, array('a')) FROM v", "LLM_MALFORMED_CALL", "at least two distinct"),
        ("SELECT llm_extract(t, 'a WRONG') FROM v", "LLM_MALFORMED_CALL", "'a WRONG' is no schema"),
        ("SELECT llm_extract(t, t) FROM v", "LLM_MALFORMED_CALL", "a schema in DDL, constant"),
        ("SELECT llm('p', CAST(t AS BINARY)) FROM v", "LLM_BINARY_FIELD", "field 'field_1'"),
        ("SELECT llm('p', array(CAST(t AS BINARY))) FROM v", "LLM_BINARY_FIELD", "is or holds BINARY"),
        ("SELECT llm_options('{}') FROM v", "LLM_MALFORMED_CALL", "outside an LLM function"),
        ("SELECT llm('p', t, llm_options('[]')) FROM v", "LLM_MALFORMED_CALL", "a constant JSON object"),
        ("SELECT * FROM v ORDER BY llm('p', t, temperature => 1)", "LLM_NONDETERMINISTIC_HERE", "ORDER BY"),
        ("SELECT count(*) FROM v GROUP BY llm('p', t, temperature => 1)", "LLM_NONDETERMINISTIC_HERE", "GROUP BY"),
        (
            "SELECT 1 FROM v a JOIN v b ON llm_filter('p', a.t, temperature => 1)",
            "LLM_NONDETERMINISTIC_HERE",
            "JOIN ON",
        ),
        ("SELECT transform(array(1), i -> llm('p', i)) FROM v", "LLM_UNSUPPORTED_PLACE", "a lambda function"),
        (
            "SELECT 1 FROM v a FULL JOIN v b ON a.id = b.id AND llm_filter('p', a.t, b.t)",
            "LLM_UNSUPPORTED_PLACE",
            "FULL OUTER JOIN",
        ),
    ],
)
def test_error_names_what_is_wrong_and_the_remedy(asking, query, condition, detail):
    with pytest.raises(AnalysisException, match=re.escape(detail)) as error:
        asking.spark.sql(query).collect()
    text = str(error.value)
    assert text.startswith(f"[{condition}] ")
    assert re.split(r"<\w+>", error_conditions()[condition]["remedy"])[0] in text.split("\n\n", 1)[1]


def test_an_ambiguous_field_is_sparks_error(asking):
    with pytest.raises(AnalysisException, match="AMBIGUOUS_REFERENCE"):
        asking.spark.sql("SELECT llm('p', t) FROM v a JOIN v b ON a.id = b.id")
    assert asking.rows("SELECT llm('p', a.t, b.t) FROM v a JOIN v b ON a.id = b.id WHERE a.id < 3")[1] == 3


@pytest.mark.parametrize("function", ["llm", "llm_filter", "llm_classify", "llm_extract", "llm_options"])
def test_describe_function_shows_usage_options_and_example(asking, function):
    rows = asking.spark.sql(f"DESCRIBE FUNCTION EXTENDED {function}").collect()
    text = "\n".join(row[0] for row in rows)
    assert f"Usage: {function}(" in text
    assert "> SELECT" in text
    assert function == "llm_options" or "temperature => double" in text


def test_a_python_that_cannot_run_is_named(asking):
    with pytest.raises(AnalysisException, match="LLM_PLANNER_PYTHON") as error:
        asking.rows("SELECT llm('p', t) FROM v", python="/nowhere/python")
    assert "'/nowhere/python'" in str(error.value)
    assert "Set spark.llm.python" in str(error.value)
