"""The same answers over Spark Connect, with and without the JAR on the server."""

from __future__ import annotations

import pytest

import spark_llm
from spark_llm import functions as F
from spark_llm.errors import LlmError
from spark_llm.session import route_of

pytestmark = pytest.mark.connect

ROWS = [(1, "good film", "A"), (2, "bad film", "A"), (3, "good film", "A"), (4, None, None)]


@pytest.fixture(autouse=True)
def reviews(remote):
    remote.calls.reset()
    remote.spark.createDataFrame(ROWS, "id INT, review STRING, title STRING").createOrReplaceTempView("reviews")


def test_sql(remote):
    call = "llm('Sum up', review, title, max_tokens => 9, field_order => 'fixed')"
    rows = spark_llm.sql(remote.spark, f"SELECT id, {call} a FROM reviews ORDER BY id").collect()
    assert rows[0].a == rows[2].a != rows[1].a
    assert rows[3].a is None
    assert len(set(remote.calls.lines())) == 2
    if route_of(remote.spark) == "extension":  # plain functions are shared inside a partition only
        assert remote.calls.count == 2


def test_filter_and_extract_types(remote):
    kept = spark_llm.sql(remote.spark, "SELECT id FROM reviews WHERE llm_filter('Is it good?', review)").collect()
    assert {row.id for row in kept} <= {1, 2, 3}
    [row] = spark_llm.sql(
        remote.spark,
        "SELECT e.score, e.actor FROM (SELECT llm_extract(review, 'actor STRING, score INT') e FROM reviews) LIMIT 1",
    ).collect()
    assert isinstance(row.score, int | None)


def test_dataframe(remote):
    frame = remote.spark.table("reviews")
    answered = frame.select("id", F.llm("Sum up", "review", "title", max_tokens=9).alias("a")).orderBy("id").collect()
    by_sql = spark_llm.sql(
        remote.spark, "SELECT id, llm('Sum up', review, title, max_tokens => 9) a FROM reviews ORDER BY id"
    ).collect()
    assert answered == by_sql


def test_plain_registered_function(remote):
    if route_of(remote.spark) == "extension":
        pytest.skip("the extension's llm takes columns")
    spark_llm.register(remote.spark)
    given = "'Sum up', struct(review, title)"
    text = f"SELECT llm({given}) a, llm({given}, '{{\"max_tokens\": 3}}') b FROM reviews"
    rows = remote.spark.sql(text).collect()
    assert all(row.a is not None for row in rows[:3])


def test_explain_asks_nothing(remote):
    query = "SELECT llm('Sum up', review, title) FROM reviews"
    if route_of(remote.spark) == "extension":
        text = spark_llm.explain(query, remote.spark)
        assert text == spark_llm.explain(remote.spark.sql(query))
        assert "asked of: stub engine, model default" in text
        assert "estimate: 4 rows, 3 distinct calls" in text
    else:
        with pytest.raises(LlmError, match=r"(?s)LLM_EXTENSION_MISSING.*spark\.jars"):
            spark_llm.explain(query, remote.spark)
    with pytest.raises(LlmError, match=r"(?s)LLM_NEEDS_CLASSIC.*field_order => 'fixed'"):
        spark_llm.order_sensitivity(remote.spark.table("reviews"))
    assert remote.calls.count == 0


def test_predicates_limits_joins_and_aggregates(remote):
    """The same rows whatever the way in, where the rewrites differ."""
    rows = [(i, f"film {i % 40}") for i in range(200)]
    remote.spark.createDataFrame(rows, "id INT, title STRING").createOrReplaceTempView("films")
    good, kind = "llm_filter('Good?', title)", "llm_classify(title, array('a', 'b', 'c')) = 'b'"
    one, both = ({row.id for row in spark_llm.sql(remote.spark, f"SELECT id FROM films WHERE {condition}").collect()}
                 for condition in (good, f"{good} AND {kind}"))  # fmt: skip
    assert both < one
    remote.calls.reset()
    first = spark_llm.sql(remote.spark, f"SELECT id FROM films WHERE {good} AND id > 20 LIMIT 3").collect()
    assert len(first) == 3
    assert {row.id for row in first} <= {i for i in one if i > 20}
    assert remote.calls.count < 30
    label = "llm_classify({}.title, array('x', 'y'))"
    text = f"SELECT count(*) FROM films a JOIN films b ON {label.format('a')} = {label.format('b')}"
    [[pairs]] = spark_llm.sql(remote.spark, text).collect()
    text = "SELECT sum(n * n) FROM (SELECT count(*) AS n FROM films GROUP BY llm_classify(title, array('x', 'y')))"
    assert spark_llm.sql(remote.spark, text).collect() == [(pairs,)]
    remote.calls.reset()
    query = "SELECT id % 2, max(llm('Sum up', title)) FROM films GROUP BY id % 2 ORDER BY 1"
    assert len(spark_llm.sql(remote.spark, query).collect()) == 2
    assert remote.calls.count == 40
    [[text]] = spark_llm.sql(
        remote.spark, "EXPLAIN SELECT id FROM films WHERE llm('x', title) LIKE 'a%' LIMIT 1"
    ).collect()
    assert "not a comparison of one answer with constants" in text


def test_the_result_log_answers_a_later_query(remote, tmp_path):
    remote.spark.conf.set("spark.llm.resultLog.path", str(tmp_path / "log"))
    try:
        query = "SELECT id, llm('Sum up', review, title) a FROM reviews ORDER BY id"
        first = spark_llm.sql(remote.spark, query).collect()
        assert remote.calls.count > 0
        remote.calls.reset()
        assert spark_llm.sql(remote.spark, query).collect() == first
        assert remote.calls.count == 0
    finally:
        remote.spark.conf.unset("spark.llm.resultLog.path")
