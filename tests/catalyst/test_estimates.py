"""What EXPLAIN expects of calls, budgets, and whether answers depend on the field order."""

from __future__ import annotations

import re

import pytest
from pyspark.errors import PySparkException

import spark_llm
from spark_llm.plan_statements import split_statements

pytestmark = pytest.mark.spark


@pytest.fixture
def sampled(asking):
    """`asking` with samples taken."""
    asking.spark.conf.set("spark.llm.planner.sampleRows", "2000")
    asking.calls.reset()
    yield asking
    asking.spark.conf.set("spark.llm.planner.sampleRows", "0")


def test_estimate_does_not_depend_on_partitions(sampled):
    """3,000 rows of 2,400 distinct tuples, of which 500 are sampled."""
    sampled.spark.conf.set("spark.llm.planner.sampleRows", "500")
    sampled.spark.range(3000).selectExpr("id % 2400 AS a", "id % 40 AS b").createOrReplaceTempView("wide")
    estimates = set()
    for parts in (1, 7):
        query = f"SELECT llm('p', a, b) FROM (SELECT /*+ REPARTITION({parts}) */ * FROM wide)"
        text = spark_llm.explain(query, sampled.spark)
        estimates.add(re.search("estimate: .*", text)[0])
    [estimate] = estimates
    assert estimate.startswith("estimate: 3000 rows, ")
    assert int(re.search(r"(\d+) distinct calls", estimate)[1]) == pytest.approx(2400, rel=0.15)
    assert sampled.calls.count == 0


def test_explain_takes_frames_and_statements(sampled):
    query = "SELECT llm('Is it good?', t, g) FROM v WHERE llm_filter('q', g)"
    text = spark_llm.explain(sampled.spark.sql(query))
    assert text == spark_llm.explain(query, sampled.spark)
    assert "asked of: stub engine, model default" in text
    assert "all calls: 100 rows, 110 distinct calls" in text
    assert spark_llm.explain("SELECT 1", sampled.spark) == "no LLM call"
    with pytest.raises(PySparkException, match="TABLE_OR_VIEW_NOT_FOUND"):
        spark_llm.explain("SELECT llm('p', x) FROM nowhere", sampled.spark)
    assert sampled.calls.count == 0


def test_a_declared_dependency_reaches_the_order(sampled):
    """In 10 of 1,200 tuples hardly a film repeats, so the sample alone cannot show that it determines its tag."""
    columns = "concat('review ', id) AS review, concat('film number ', id % 300, ' of the whole series') AS film, "
    columns += "concat('other ', id DIV 8) AS other, concat('tag ', id % 300 % 200) AS tag"
    sampled.spark.sql(f"CREATE OR REPLACE TEMP VIEW films AS SELECT {columns} FROM range(1200)")
    sampled.spark.conf.set("spark.llm.planner.sampleRows", "10")
    query, order = "SELECT llm('p', review, film, other, tag) FROM films", "fields: .*"
    alone = re.search(order, spark_llm.explain(query, sampled.spark))[0]
    sampled.spark.conf.set("spark.llm.dependencies", '{"films": ["film -> tag"]}')
    declared = re.search(order, spark_llm.explain(query, sampled.spark))[0]
    sampled.spark.conf.set("spark.llm.planner.sampleRows", "0")
    unsampled = spark_llm.explain(query, sampled.spark)
    sampled.spark.conf.unset("spark.llm.dependencies")
    assert alone.startswith("fields: film, other, ")
    assert declared.startswith("fields: film, tag, ")
    assert "fields: tag, film, review, other" in unsampled
    assert "no sample: spark.llm.planner.sampleRows is 0" in unsampled
    assert sampled.calls.count == 0


def test_prices_give_money(sampled):
    query = "SELECT llm('p', t, max_tokens => 10) FROM v"
    assert "cost" not in spark_llm.explain(query, sampled.spark)
    sampled.spark.conf.set("spark.llm.price.output", "1000")
    text = spark_llm.explain(query, sampled.spark)
    sampled.spark.conf.unset("spark.llm.price.output")
    assert "500 output tokens" in text
    assert "cost 0.500000" in text


@pytest.mark.parametrize(
    ("table", "rows"),
    [("SELECT id, CAST(NULL AS STRING) AS x FROM v", 100), ("SELECT id, repeat('x', 1 << 20) AS x FROM v", 100)],
)
def test_odd_columns_are_estimated_and_answered(sampled, table, rows):
    query = f"SELECT llm('p', x) FROM ({table})"
    assert f"estimate: {rows} rows, 1 distinct calls" in spark_llm.explain(query, sampled.spark)
    assert len(sampled.spark.sql(query).collect()) == rows


def test_no_rows_have_no_estimate(sampled):
    query = "SELECT llm('p', t) FROM v WHERE id + rand(1) < 0"
    assert "no sample of the input" in spark_llm.explain(query, sampled.spark)
    assert sampled.spark.sql(query).collect() == []


def test_budget_counts_all_calls_of_a_query(sampled):
    query = "SELECT llm('Is it good?', t, max_tokens => 100), llm_filter('q', g) FROM v"
    with pytest.raises(PySparkException, match=r"LLM_BUDGET.*is expected to take"):
        sampled.rows(query, budget_tokens="4000")
    assert sampled.calls.count == 0
    rows, asked = sampled.rows(query, budget_tokens="1000000")
    assert (len(rows), asked) == (100, 110)


def test_order_sensitivity_asks_both_orders(sampled):
    query = "SELECT llm('p', t, g), llm_classify(g, array('a', 'b')) FROM v"
    insensitive = spark_llm.order_sensitivity(sampled.spark.sql(query), n=20)
    assert [(s.rows, s.agreement, s.errors) for s in insensitive] == [(20, 1.0, 0), (10, 1.0, 0)]
    assert insensitive[0].written == ("t", "g")
    assert insensitive[0].planned == ("g", "t")
    args = sampled.spark.conf.get("spark.llm.engine.args")
    sampled.spark.conf.set("spark.llm.engine.args", args.replace("{", '{"echo": true, ', 1))
    echoed = spark_llm.order_sensitivity(sampled.spark.sql("SELECT llm('p', t, g) FROM v"), n=20)
    sampled.spark.conf.set("spark.llm.engine.args", args)
    assert [(s.rows, s.agreement) for s in echoed] == [(20, 0.0)]
    with pytest.raises(ValueError, match="at least 1, got 0"):
        spark_llm.order_sensitivity(sampled.spark.sql(query), n=0)


def test_statements_of_a_script_are_split():
    script = "-- a;\nSET x = ';';\nSELECT /* ; */ 1;\n\n-- end\n"
    assert split_statements(script) == ["-- a;\nSET x = ';'", "SELECT /* ; */ 1"]
    assert split_statements("SELECT 'open") == ["SELECT 'open"]
