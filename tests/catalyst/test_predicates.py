"""Predicates by cost and selectivity, early stop under a LIMIT, answers as join keys: rows, calls and reasons."""

from __future__ import annotations

import pytest

from tests.catalyst.test_plans import explained

pytestmark = pytest.mark.spark

LABELS = "array('a', 'b', 'c', 'd', 'e', 'f', 'g', 'h')"
GOOD, KIND = "llm_filter('Good?', t)", f"llm_classify(t, {LABELS}) = 'c'"
BOTH = f"SELECT id FROM thousand WHERE {GOOD} AND {KIND}"


@pytest.fixture(scope="module", autouse=True)
def thousand(asking):
    asking.spark.sql(
        "CREATE OR REPLACE TEMP VIEW thousand AS SELECT id, concat('row ', id) AS t FROM range(0, 1000, 1, 2)"
    )


def ids(rows) -> list[int]:
    return sorted(row.id for row in rows)


@pytest.fixture(scope="module")
def naive(asking):
    """The ids that pass each predicate, and both."""

    def passing(condition: str) -> list[int]:
        return ids(asking.rows(f"SELECT id FROM thousand WHERE {condition}", optimize_enabled="false")[0])

    good, kind = passing(GOOD), passing(KIND)
    return {GOOD: good, KIND: kind, BOTH: sorted(set(good) & set(kind))}


def test_the_selective_predicate_is_asked_first(asking, naive):
    rows, asked = asking.rows(BOTH)
    assert ids(rows) == naive[BOTH]
    assert asked == len(set(asking.calls.lines()))
    assert asked <= 1000 + len(naive[KIND]) + 2 * 32
    rows, as_written = asking.rows(BOTH, optimize_predicates_enabled="false")
    assert ids(rows) == naive[BOTH]
    assert as_written == 1000 + len(naive[GOOD])


def test_reasons(asking):
    together = explained(asking.spark, BOTH)
    assert "llm_filter(Good?) AND llm_classify" in together
    assert "predicates asked together, by cost / (1 - selectivity)" in together
    used = explained(asking.spark, f"SELECT llm_filter('Good?', t) FROM thousand WHERE {GOOD} AND {KIND}")
    assert "predicates in the order of the text: its answer is used elsewhere too" in used
    like = explained(asking.spark, "SELECT id FROM thousand WHERE llm('p', t) LIKE 'x%' LIMIT 3")
    assert "no early stop: not a comparison of one answer with constants" in like


@pytest.mark.parametrize("condition", [GOOD, f"{GOOD} AND {KIND}", f"{KIND} AND id % 2 = 0", f"NOT {GOOD}"])
def test_a_limit_stops_early(asking, condition):
    all_rows = ids(asking.rows(f"SELECT id FROM thousand WHERE {condition}")[0])
    rows, asked = asking.rows(f"SELECT id FROM thousand WHERE {condition} LIMIT 5")
    assert len(rows) == 5
    assert set(ids(rows)) <= set(all_rows)
    assert asked <= 150
    [[count]], asked = asking.rows(f"SELECT count(*) FROM (SELECT id FROM thousand WHERE {condition} LIMIT 5)")
    assert count == 5
    assert asked <= 300


def test_the_first_rows_by_a_key(asking, naive):
    rows, asked = asking.rows(f"SELECT id, upper(t) FROM thousand WHERE {GOOD} ORDER BY id DESC LIMIT 4 OFFSET 1")
    assert [row.id for row in rows] == naive[GOOD][::-1][1:5]
    assert asked <= 30


def test_limits_that_are_switched_off_or_never_reached(asking, naive):
    query = f"SELECT id FROM thousand WHERE {GOOD} AND {KIND} LIMIT 900"
    assert ids(asking.rows(query)[0]) == naive[BOTH]
    rows, asked = asking.rows(f"SELECT id FROM thousand WHERE {GOOD} LIMIT 5", optimize_limits_enabled="false")
    assert set(ids(rows)) <= set(naive[GOOD])
    assert asked >= 250


@pytest.mark.parametrize("test", ["=", "<>"])
def test_a_join_on_labels_asks_each_row_once(asking, test):
    label = "llm_classify({}.t, array('x', 'y', 'z'))"
    condition = f"{label.format('a')} {test} {label.format('b')} AND a.id < b.id"
    query = f"SELECT a.id, b.id AS other FROM v a JOIN v b ON {condition}"
    rows, asked = asking.rows(query)
    plain, _ = asking.rows(query, optimize_enabled="false")
    assert sorted(rows) == sorted(plain)
    assert asked == 100
    text = explained(asking.spark, query)
    assert "asked before the join, which compares the answers" in text
    plan = asking.spark.sql(query)._jdf.queryExecution().optimizedPlan().toString()
    assert "Join Inner, (true" not in plan
    rows, _ = asking.rows(query, optimize_joins_enabled="false")
    assert sorted(rows) == sorted(plain)
