"""The shape of planned queries, what EXPLAIN says about it, and when a rewrite must not happen."""

from __future__ import annotations

import random
import re
import sys

import pytest
from pyspark.sql.functions import udf

pytestmark = pytest.mark.spark


def nodes(spark, query: str) -> list[str]:
    """The operators of the optimized plan, top down."""
    text = spark.sql(query)._jdf.queryExecution().optimizedPlan().toString()
    return re.findall(r"^[ :+-]*([A-Z]\w+) ?(?:\[|\(|LeftOuter|spark_llm)", text, re.MULTILINE)


def explained(spark, query: str) -> str:
    text = "\n".join(row[0] for row in spark.sql(f"EXPLAIN {query}").collect())
    return text.split("== Extended Information (LLM) ==")[1]


def test_deduplicated_plan(asking):
    assert nodes(asking.spark, "SELECT id, llm('p', g, t) FROM v") == [
        "Project", "Join", "Project", "Project", "Range",  # the rows
        "Project", "CollectMetrics", "Project", "ArrowEvalPython", "Sort", "RepartitionByExpression", "Aggregate",
        "Project", "Range",
    ]  # fmt: skip


def test_explain_shows_order_rewrite_and_estimate_without_asking(asking):
    asking.spark.conf.set("spark.llm.planner.sampleRows", "2000")
    asking.calls.reset()
    text = explained(asking.spark, "SELECT id, llm('Is it good?', t, g) FROM v")
    asking.spark.conf.set("spark.llm.planner.sampleRows", "0")
    assert "llm(Is it good?) fields: g, t" in text
    assert "  deduplicated\n" in text
    assert "estimate: 100 rows, 100 distinct calls" in text
    assert asking.calls.count == 0


def test_small_answers_are_broadcast_by_hint(asking):
    asking.spark.conf.set("spark.llm.planner.sampleRows", "2000")
    query = "SELECT id, llm('p', g) FROM v"
    plan = asking.spark.sql(query)._jdf.queryExecution().optimizedPlan().toString()
    asking.spark.conf.set("spark.llm.broadcastRows", "9")
    unhinted = asking.spark.sql(query)._jdf.queryExecution().optimizedPlan().toString()
    asking.spark.conf.unset("spark.llm.broadcastRows")
    asking.spark.conf.set("spark.llm.planner.sampleRows", "0")
    assert "rightHint=(strategy=broadcast)" in plan
    assert "rightHint" not in unhinted


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("SELECT llm('p', g) FROM v WHERE rand(1) < 0.5", "the input is not deterministic"),
        ("SELECT llm('p', g) FROM v TABLESAMPLE (50 PERCENT)", "the input is a sample"),
        ("SELECT llm('p', g) FROM (SELECT * FROM v LIMIT 50)", "the input has a LIMIT"),
        ("SELECT id FROM v WHERE llm_filter('p', g) LIMIT 3", "a LIMIT above stops early"),
        ("SELECT llm('p', g, temperature => 1) FROM v", "temperature > 0 without seed"),
        ("SELECT g, llm('p', g) FROM v GROUP BY g", "the arguments are distinct"),
    ],
)
def test_reason_against_deduplication(asking, query, reason):
    assert f"not deduplicated: {reason}" in explained(asking.spark, query).replace(
        "the call is not deterministic (", ""
    )


@pytest.mark.parametrize("rewrite", ["share", "place", "predicates", "limits", "joins", "deduplicate", "order"])
def test_switched_off_rewrite_is_said(asking, rewrite):
    key = f"spark.llm.optimize.{rewrite}.enabled"
    asking.spark.conf.set(key, "false")
    text = explained(asking.spark, "SELECT llm('p', g) FROM v")
    asking.spark.conf.unset(key)
    assert f"{key} is false" in text


@pytest.fixture
def python_udfs(asking, monkeypatch):
    """Plain Python functions run under this Python."""
    monkeypatch.setattr(asking.spark.sparkContext, "pythonExec", sys.executable)


@pytest.mark.usefixtures("python_udfs")
def test_input_that_changes_between_reads_is_an_error(asking):
    drawn = udf(lambda: random.SystemRandom().random())  # said to be deterministic, but is not
    asking.spark.table("v").withColumn("x", drawn()).createOrReplaceTempView("changing")
    with pytest.raises(Exception, match="LLM_CHILD_CHANGED") as error:
        asking.rows("SELECT llm('p', x) FROM changing")
    assert "SET spark.llm.optimize.deduplicate.enabled=false" in str(error.value)
    rows, asked = asking.rows("SELECT llm('p', x) FROM changing", optimize_deduplicate_enabled="false")
    assert asked == len(rows) == 100


@pytest.mark.usefixtures("python_udfs")
def test_nondeterministic_python_function_is_read_once(asking):
    drawn = udf(lambda: random.SystemRandom().random()).asNondeterministic()
    asking.spark.table("v").withColumn("x", drawn()).createOrReplaceTempView("drawn")
    rows, asked = asking.rows("SELECT llm('p', x) FROM drawn")
    assert asked == len([row for row in rows if row[0]]) == 100


def test_answers_written_to_a_table(asking):
    asking.calls.reset()
    asking.spark.sql("CREATE TABLE answers USING parquet AS SELECT g, llm('p', g) AS x FROM v")
    assert asking.calls.count == 10
    assert asking.spark.table("answers").where("x LIKE 'stub%'").count() == 100
    asking.spark.sql("DROP TABLE answers")
