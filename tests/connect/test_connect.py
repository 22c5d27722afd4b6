"""The same answers over Spark Connect, with and without the JAR on the server."""

from __future__ import annotations

import pytest

import spark_llm
from spark_llm import functions as F
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
