"""The log in queries: joined before asking, said in EXPLAIN, counted in the report; a killed driver pays once."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from pyspark.errors import PySparkException

pytestmark = pytest.mark.spark

ROWS = """
SELECT id, if(id % 7 = 0, NULL, concat('täxt "', id % 20, '"\n😀')) AS s, id % 3 AS n,
  named_struct('a', id % 2, 'b', NULL) AS st,
  array(concat('x,]', id % 3), concat('y"\\\\', id % 2), NULL) AS arr
FROM range(0, 60, 1, 2)
"""


@pytest.fixture
def logged(spark, tmp_path):
    spark.conf.set("spark.llm.resultLog.path", str(tmp_path / "log"))
    spark.conf.set("spark.sql.shuffle.partitions", "2")
    spark.conf.set("spark.llm.planner.sampleRows", "0")
    spark.conf.set("spark.sql.codegen.wholeStage", "false")
    spark.sql(ROWS).createOrReplaceTempView("v")
    return spark


def rows(spark, query: str) -> list[str]:
    return sorted(map(str, spark.sql(query).collect()))


def explained(spark, query: str) -> str:
    return spark.sql(f"EXPLAIN {query}").collect()[0][0].split("(LLM) ==")[1]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT id, llm('p', s, n, st, arr, unordered => array('arr')) FROM v",
        "SELECT llm('to {s}, {n}', s, n, st, inline => true, field_order => 'fixed') FROM v",
        "SELECT llm(concat('Say ', s)), llm_classify(st, n, array('a', 'b')) FROM v",
    ],
    ids=["types", "inline", "two calls"],
)
def test_spark_finds_what_python_wrote(logged, calls, query):
    first = rows(logged, query)
    assert calls.count > 0
    calls.reset()
    assert "result log: joined, at most" in explained(logged, query)
    assert rows(logged, query) == first
    assert calls.count == 0


def test_logged_answers_cost_nothing_of_a_budget(logged, calls):
    logged.conf.set("spark.llm.planner.sampleRows", "100")
    query = "SELECT id, llm('p', s, n) FROM v"
    logged.conf.set("spark.llm.budget.tokens", "1")
    with pytest.raises(PySparkException, match=r"LLM_BUDGET.*is expected to take"):
        rows(logged, query)
    assert calls.count == 0
    logged.conf.unset("spark.llm.budget.tokens")
    first = rows(logged, query)
    logged.conf.set("spark.llm.budget.tokens", "1")
    calls.reset()
    assert rows(logged, query) == first
    assert calls.count == 0


def test_only_missing_tuples_are_asked_and_other_options_do_not_mix(logged, calls):
    query = "SELECT id, llm('p', s) FROM v"
    assert "no answer of this call yet" in explained(logged, query)
    rows(logged, f"{query} WHERE id < 15")
    calls.reset()
    rows(logged, query)
    assert calls.count == 20 - len({i % 20 for i in range(15) if i % 7})
    calls.reset()
    rows(logged, "SELECT id, llm('p', s, max_tokens => 9) FROM v")
    assert calls.count == 20


def test_where_it_is_not_joined_tasks_look_it_up(logged, calls):
    query = "SELECT id, llm('p', s) FROM v"
    first = rows(logged, query)
    calls.reset()
    for key in ("spark.llm.optimize.deduplicate.enabled", "spark.llm.optimize.enabled"):
        logged.conf.set(key, "false")
        if "deduplicate" in key:
            assert "result log: looked up in tasks" in explained(logged, query)
        assert rows(logged, query) == first
        logged.conf.unset(key)
    rows(logged, "SELECT llm('p', s) FROM v LIMIT 5")
    assert calls.count == 0


def test_torn_files_cost_their_answers_only_and_are_reported(logged, calls, tmp_path):
    query = "SELECT id, llm('p', s) FROM v"
    first = rows(logged, query)
    files = sorted((tmp_path / "log").glob("*/*.parquet"))
    lost = int(files[0].name.split("-")[4])
    assert len(files) == 2
    files[0].write_bytes(files[0].read_bytes()[:-1])
    calls.reset()
    assert "1 torn files ignored" in explained(logged, query)
    assert rows(logged, query) == first
    assert calls.count == lost


def test_damaged_and_vanished_files_are_no_failure(logged, calls, tmp_path):
    query = "SELECT id, llm('p', s) FROM v"
    first = rows(logged, query)
    one, other = sorted((tmp_path / "log").glob("*/*.parquet"))
    planned = logged.sql(query)
    planned._jdf.queryExecution().executedPlan()
    one.write_bytes(bytes(one.stat().st_size))
    other.unlink()
    calls.reset()
    assert sorted(map(str, planned.collect())) == first
    assert calls.count == 20


def test_a_place_that_only_tasks_can_reach_is_said(logged):
    logged.conf.set("spark.llm.resultLog.path", "gs://bucket/x")
    assert "result log: looked up in tasks: Spark cannot read gs: paths" in explained(
        logged, "SELECT llm('p', s) FROM v"
    )
    logged.conf.set("spark.llm.resultLog.path", "x/y")
    with pytest.raises(Exception, match=r"LLM_BAD_CONF.*resultLog\.path"):
        logged.sql("SELECT llm('p', s) FROM v").collect()


def test_equal_answer_tables_stay_one(logged, calls):
    query = "SELECT id FROM (SELECT id, llm('p', s) AS a FROM v) WHERE a LIKE 'stub%' AND llm_filter('q', a) ORDER BY a"
    first = rows(logged, query)
    asked = calls.count
    assert asked == 40
    rows(logged, query)
    assert calls.count == asked
    assert first == rows(logged, query)


def test_a_cached_plan_that_runs_again_asks_nothing(logged, calls):
    planned = logged.sql("SELECT id, llm('p', s) FROM v")
    first = planned.collect()
    calls.reset()
    assert sorted(map(str, planned.collect())) == sorted(map(str, first))
    assert calls.count == 0


@pytest.mark.slow
def test_a_killed_driver_pays_once():
    script = Path(__file__).parents[2] / "benchmarks" / "result_log.py"
    command = [sys.executable, str(script), "--fault", "driver", "--rows", "3000", "--json", "--results", os.devnull]
    outcome = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=500).stdout)
    assert (outcome["lost"], outcome["duplicated"]) == (0, 0)
    assert outcome["calls_before"] > 0
    assert outcome["repeated_calls"] <= outcome["allowed_repeats"]
    assert outcome["repeated_calls"] < outcome["calls_before"] / 2


def test_random_overlaps_ask_each_tuple_once(logged, calls):
    rng = random.Random(3)
    for _ in range(3):
        low = rng.randrange(40)
        rows(logged, f"SELECT id, llm('p', s) FROM v WHERE id BETWEEN {low} AND {low + 20}")
    asked = calls.lines()
    assert len(asked) == len(set(asked))
