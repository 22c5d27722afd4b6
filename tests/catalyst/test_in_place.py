"""Rows whose arguments hardly repeat: arranged and asked in place, each distinct tuple still once."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from tests.catalyst.test_plans import explained, nodes
from tests.catalyst.test_property import SCHEMA, table

pytestmark = pytest.mark.spark
REASON = "most arguments are distinct"
IN_PLACE = {"planner_sampleRows": "2000", "inPlaceRows": "20"}
FIXED = "field_order => 'fixed')"
QUERIES = (
    f"SELECT k, llm('p', s, n, {FIXED} FROM t",
    f"SELECT * FROM t WHERE llm_filter('p', concat(s, '!'), st, {FIXED}",
    f"SELECT n, count(*), max(llm('p', s, d, {FIXED}) FROM t GROUP BY n",
    f"SELECT k FROM t ORDER BY llm('p', s, {FIXED}, k",
    f"SELECT CASE WHEN k < 6 THEN llm('p', s, arr, {FIXED} ELSE s END, st FROM t",
    f"SELECT k, part FROM t LATERAL VIEW explode(split(s, '')) AS part WHERE llm_filter('p', s, st, {FIXED}",
    f"SELECT k, row_number() OVER (PARTITION BY k ORDER BY llm('p', s, {FIXED}, s) FROM t",
)
"""Prompts of a fixed field order can be compared between two plans."""


@pytest.fixture
def asking_in_place(asking):
    """The session, its rows sampled and few of them enough."""
    for key, value in IN_PLACE.items():
        asking.spark.conf.set(f"spark.llm.{key.replace('_', '.')}", value)
    yield asking
    asking.spark.conf.set("spark.llm.planner.sampleRows", "0")
    asking.spark.conf.unset("spark.llm.inPlaceRows")


def test_one_exchange_and_no_join(asking_in_place):
    assert nodes(asking_in_place.spark, "SELECT id, llm('p', t, g) FROM v") == [
        "Project", "CollectMetrics", "Project", "ArrowEvalPython", "Sort", "RepartitionByExpression", "Project",
        "Project", "Range",
    ]  # fmt: skip
    assert REASON in explained(asking_in_place.spark, "SELECT id, llm('p', t, g) FROM v")


@pytest.mark.parametrize(
    "query",
    [
        "SELECT id, llm('p', g) FROM v",
        "SELECT llm('p', t), llm('q', g) FROM v",
        "SELECT llm('outer', llm('p', t)) FROM v",
        "SELECT llm('p', t) FROM v WHERE id < 19",
    ],
)
def test_answers_are_joined_back_where_that_saves(asking_in_place, query):
    text = explained(asking_in_place.spark, query)
    assert "  deduplicated\n" in text
    assert REASON not in text


def test_unsorted_rows_are_never_asked_in_place(asking_in_place):
    asking_in_place.spark.conf.set("spark.llm.optimize.order.enabled", "false")
    try:
        text = explained(asking_in_place.spark, "SELECT id, llm('p', t, g) FROM v")
    finally:
        asking_in_place.spark.conf.unset("spark.llm.optimize.order.enabled")
    assert "  deduplicated\n" in text
    assert REASON not in text


@pytest.mark.parametrize("tasks", [1, 7, 60])
def test_equal_rows_meet_whatever_the_number_of_tasks(asking_in_place, tasks):
    spark = asking_in_place.spark
    rows = [(i, None if i % 8 == 3 else i, f"t{i}") for i in [*range(100), 0, 3, 11, 50, 99]]
    spark.createDataFrame(rows, "id INT, g INT, t STRING").createOrReplaceTempView("t")
    assert REASON in explained(spark, "SELECT id, llm('p', g, t) FROM t")
    answered, asked = asking_in_place.rows("SELECT id, llm('p', g, t) FROM t", partitions=str(tasks))
    assert asked == 100
    assert sorted(row.id for row in answered) == sorted(row[0] for row in rows)
    assert len(set(answered)) == len({answer for _, answer in answered}) == 100


@pytest.mark.parametrize("query", QUERIES)
def test_rows_of_the_naive_evaluation(asking_in_place, query):
    rng = random.Random(QUERIES.index(query))
    drawn = [row for _ in range(5) for row in table(rng)]
    rows = [(k, f"{s}{i}" if i % 40 else None, *rest) for i, (k, s, *rest) in enumerate(drawn)]
    rows += rng.sample(rows, len(rows) // 20)
    asking_in_place.spark.createDataFrame(rows, SCHEMA).createOrReplaceTempView("t")
    naive, _ = asking_in_place.rows(query, optimize_enabled="false")
    asked_naively = set(asking_in_place.calls.lines())
    optimized, _ = asking_in_place.rows(query)
    asked = asking_in_place.calls.lines()
    assert REASON in explained(asking_in_place.spark, query)
    assert Counter(map(str, optimized)) == Counter(map(str, naive))
    assert len(asked) == len(set(asked))
    assert set(asked) <= asked_naively
