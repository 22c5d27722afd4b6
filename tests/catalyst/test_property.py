"""Random tables and queries: the rewrites change how often the model is asked, and nothing else."""

from __future__ import annotations

import random
from collections import Counter

import pytest

pytestmark = pytest.mark.spark

SCHEMA = "k INT, s STRING, n INT, d DOUBLE, st STRUCT<a: INT, b: STRING>, arr ARRAY<STRING>"
TEXTS = ["", " ", "a", "ab", 'quote " and \\', "line\nbreak", "{s}", "naïve", "日本語", "👩‍🚀", None]
NUMBERS = [None, 0, 1, -7, 2**31 - 1]
DOUBLES = [None, 0.0, -0.0, 1e-9, float("nan"), float("inf"), 1 / 3]
# Fixed orders: prompts of the same call can then be compared between two plans.
FIELDS = ["s", "n", "d", "st", "arr", "st.b", "concat(s, '!')", "n + 0L", "get(arr, 0)"]
SWITCHES = ["share", "place", "predicates", "limits", "joins", "deduplicate", "order"]
QUERIES = 30


def table(rng: random.Random) -> list[tuple]:
    def row(key: int) -> tuple:
        struct = rng.choice([None, {"a": rng.choice(NUMBERS), "b": rng.choice(TEXTS)}])
        array = rng.choice([None, [], [rng.choice(TEXTS)], ["a", None]])
        return key, rng.choice(TEXTS), rng.choice(NUMBERS), rng.choice(DOUBLES), struct, array

    return [row(rng.randrange(8)) for _ in range(rng.randrange(40))]


def call(rng: random.Random, alias: str = "", function: str = "llm") -> str:
    fields = rng.sample(FIELDS, rng.randrange(1, 4))
    named = ", ".join(f if "(" in f or "+" in f else alias + f for f in fields)
    named = named.replace("(s", f"({alias}s").replace("n + 0L", f"{alias}n + 0L").replace("get(arr", f"get({alias}arr")
    prompt = rng.choice(["p", "q"])
    if function == "llm_classify":
        return f"llm_classify({named}, array('x', 'y', 'z'), field_order => 'fixed')"
    return f"{function}('{prompt}', {named}, field_order => 'fixed')"


def query(rng: random.Random) -> str:
    """One query of a small grammar around one to three calls."""
    one, other = call(rng), call(rng, function=rng.choice(["llm", "llm_classify"]))
    keep, keep_too = call(rng, function="llm_filter"), call(rng, function="llm_filter")
    joined = call(rng, "a.", "llm_filter")
    same = call(rng, function="llm_classify")
    again = keep.replace("'p'", "'r'").replace("'q'", "'r'")
    return rng.choice(
        [
            f"SELECT k, {one} AS x, {other} AS y FROM t",
            f"SELECT k, {one} AS x FROM t WHERE {keep} AND k > 2",
            f"SELECT k, {one} AS x FROM t WHERE {keep} OR {keep_too} OR k = 3",
            f"SELECT x, y FROM (SELECT {one} AS x, {other} AS y, k FROM t) WHERE x LIKE '%1%' AND k < 6",
            f"SELECT k, CASE WHEN k < 3 THEN {one} WHEN {keep} THEN 'kept' ELSE {other} END FROM t",
            f"SELECT coalesce(nullif(s, 'a'), {one}), if(k > 4, {other}, NULL) FROM t",
            f"SELECT llm('outer', {one}) FROM t",
            "SELECT n, llm('g', n), count(*) FROM t GROUP BY n HAVING llm_filter('h', n) AND count(*) > 1",
            f"SELECT {one}, count(*), max({other}) FROM t GROUP BY {one}",
            f"SELECT k FROM t ORDER BY {one}, k",
            f"SELECT a.k FROM t a JOIN t b ON a.k = b.k WHERE {joined} AND b.n > 0",
            "SELECT a.k, llm('pair', a.s, b.n, field_order => 'fixed') "
            "FROM t a LEFT JOIN t b ON a.k = b.k AND llm_filter('j', b.n)",
            "SELECT a.k FROM t a JOIN t b ON a.k = b.k AND llm_filter('same', a.s, b.s, field_order => 'fixed')",
            f"SELECT DISTINCT {one} FROM t UNION ALL SELECT {one} FROM t",
            f"SELECT k FROM t WHERE {keep} AND {again} AND k <> 5",
            f"SELECT k, {one} FROM t WHERE {same} <> 'x' AND {keep_too} AND {keep} IS NOT NULL",
            "SELECT a.k, b.k FROM t a JOIN t b "
            "ON llm_classify(a.s, array('x', 'y')) = llm_classify(b.s, array('x', 'y'))",
            f"SELECT n, max({one}), count({other}) FROM t GROUP BY n",
            f"SELECT k, row_number() OVER (PARTITION BY {keep} ORDER BY k, s, n, d, st, arr) FROM t",
        ]
    )


@pytest.mark.parametrize("seed", range(QUERIES))
def test_rewrites_change_only_how_often_the_model_is_asked(asking, seed):
    rng = random.Random(seed)
    asking.spark.createDataFrame(table(rng), SCHEMA).createOrReplaceTempView("t")
    text = query(rng)
    naive, _ = asking.rows(text, optimize_enabled="false")
    asked_naively = set(asking.calls.lines())
    optimized, _ = asking.rows(text)
    asked = asking.calls.lines()
    assert Counter(map(str, optimized)) == Counter(map(str, naive)), text
    assert len(asked) == len(set(asked)), f"asked twice: {text}"
    assert set(asked) <= asked_naively, f"asked what nobody needs: {text}"


@pytest.mark.parametrize("seed", range(8))
def test_any_switch_may_be_off(asking, seed):
    rng = random.Random(1000 + seed)
    asking.spark.createDataFrame(table(rng), SCHEMA).createOrReplaceTempView("t")
    text = query(rng)
    off = rng.sample(SWITCHES, rng.randrange(1, 4))
    naive, _ = asking.rows(text, optimize_enabled="false")
    some, _ = asking.rows(text, **{f"optimize_{name}_enabled": "false" for name in off})
    assert Counter(map(str, some)) == Counter(map(str, naive)), (off, text)


@pytest.mark.parametrize("seed", range(4))
def test_a_limit_gives_rows_of_the_whole_answer(asking, seed):
    rng = random.Random(2000 + seed)
    asking.spark.createDataFrame(table(rng), SCHEMA).createOrReplaceTempView("t")
    keep, also = call(rng, function="llm_filter"), call(rng, function="llm_classify")
    where = rng.choice([keep, f"NOT {keep}", f"{keep} AND {also} <> 'x'", f"{also} IN ('x', 'y') AND k > 2"])
    limit = rng.randrange(1, 6)
    whole = [row.k for row in asking.rows(f"SELECT k FROM t WHERE {where}", optimize_enabled="false")[0]]
    some = [row.k for row in asking.rows(f"SELECT k FROM t WHERE {where} LIMIT {limit}")[0]]
    assert len(some) == min(limit, len(whole))
    assert not Counter(some) - Counter(whole)
    first = [row.k for row in asking.rows(f"SELECT k FROM t WHERE {where} ORDER BY k LIMIT {limit}")[0]]
    assert first == sorted(whole)[:limit]


def test_plain_projection_asks_each_distinct_tuple_once(asking):
    rng = random.Random(7)
    rows = table(rng) + [(1, None, None, 0.0, None, None), (2, "a", 1, -0.0, None, [])] * 3
    asking.spark.createDataFrame(rows, SCHEMA).createOrReplaceTempView("t")
    tuples = {(s, repr(d)) for _, s, _, d, _, _ in rows if s is not None or d is not None}
    _, asked = asking.rows("SELECT k, llm('p', s, d) FROM t")
    assert asked == len(tuples)
