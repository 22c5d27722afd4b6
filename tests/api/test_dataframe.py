"""The DataFrame functions ask what the SQL functions ask."""

from __future__ import annotations

import pytest

import spark_llm
from spark_llm import functions as F
from spark_llm.session import route_of

pytestmark = pytest.mark.spark
ROWS = [(1, "good film", "A"), (2, "bad film", "B"), (3, "good film", "A"), (4, None, None)]


@pytest.fixture
def reviews(spark):
    frame = spark.createDataFrame(ROWS, "id INT, review STRING, title STRING")
    frame.createOrReplaceTempView("reviews")
    return frame


def test_route(spark):
    assert route_of(spark) == "extension"


@pytest.mark.parametrize(
    ("column", "text"),
    [
        (
            lambda: F.llm("Sum up", "review", "title", max_tokens=9, stop=["."]),
            "llm('Sum up', review, title, max_tokens => 9, stop => array('.'))",
        ),
        (lambda: F.llm_filter("Good?", "review"), "llm_filter('Good?', review)"),
        (lambda: F.llm_classify("review", labels=["a", "b"]), "llm_classify(review, array('a', 'b'))"),
        (lambda: F.llm_extract("review", schema="n INT, s STRING"), "llm_extract(review, 'n INT, s STRING')"),
        (lambda: F.llm("Sum up", "*"), "llm('Sum up', *)"),
    ],
)
def test_same_as_sql(spark, reviews, calls, column, text):
    ours = reviews.select("id", column().alias("a")).orderBy("id")
    theirs = spark.sql(f"SELECT id, {text} AS a FROM reviews ORDER BY id")
    assert ours.schema == theirs.schema
    assert ours.collect() == theirs.collect()
    once = len(set(calls.lines()))
    assert len(set(calls.lines())) == once > 0


def test_sql_passes_the_text_through(spark, reviews, calls):
    rows = spark_llm.sql(spark, "SELECT llm('Sum up', review) a FROM reviews WHERE id = :n", args={"n": 1}).collect()
    assert len(rows) == calls.count == 1


def test_column_as_prompt(spark, reviews, calls):
    from pyspark.sql import functions as sf

    rows = reviews.select(F.llm(sf.concat(sf.lit("Is it good: "), "review"))).collect()
    assert rows[3][0] is None
    assert calls.count == 2


def test_branches_of_a_union_share_answers_in_the_worker(spark, calls, tmp_path):
    """Their inputs differ, so the plan keeps them apart; the host's worker remembers answers until the query ends."""
    for name, value in {"placement": "worker", "worker.dir": str(tmp_path / "w"), "worker.idleSeconds": "15"}.items():
        spark.conf.set(f"spark.llm.{name}", value)
    branch = "SELECT id, llm('Q', id % 10) a FROM range(40) WHERE id {}"
    rows = spark.sql(f"{branch.format('< 25')} UNION ALL {branch.format('>= 15')}").collect()
    assert len(rows) == 50
    assert len({row.a for row in rows}) == 10
    assert calls.count == 10
