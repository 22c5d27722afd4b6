"""How often the model is asked with the plan rewrites and without, on the stub engine, in one run.

    python benchmarks/rewrites.py --rows 2000 --json

One JSON line, appended to benchmarks/results/rewrites.jsonl: for each query the calls of the naive plan
(`spark.llm.optimize.enabled=false`), of all rewrites, and whether both gave the same rows (for LIMIT: rows of the naive
answer). Calls are counted by the engine itself.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from emit import emit
from pyspark.sql import SparkSession

import spark_llm

RESULTS = Path(__file__).resolve().parent / "results" / "rewrites.jsonl"
KIND = "llm_classify({}text, array('a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'))"
QUERIES = {
    "two predicates": f"SELECT id FROM t WHERE llm_filter('Good?', text) AND {KIND.format('')} = 'c'",
    "filter under LIMIT 10": "SELECT id FROM t WHERE llm_filter('Good?', text) LIMIT 10",
    "top 10 of a filter": "SELECT id FROM t WHERE llm_filter('Good?', text) ORDER BY id DESC LIMIT 10",
    "self-join on labels": "SELECT count(*) FROM few a JOIN few b "
    f"ON {KIND.format('a.')} = {KIND.format('b.')} AND a.id < b.id",
    "aggregate of answers": "SELECT id % 7, max(llm('Sum up', topic)) FROM t GROUP BY id % 7",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        line = measure(arguments.rows, Path(folder))
    emit(line, RESULTS, as_json=arguments.json)


def measure(rows: int, folder: Path) -> dict[str, Any]:
    args = {"calls_dir": str(folder)}
    conf = {"spark.llm.engine": "stub", "spark.llm.placement": "inprocess", "spark.llm.engine.args": json.dumps(args)}
    quiet = {"spark.ui.enabled": "false", "spark.llm.report.enabled": "false", "spark.sql.shuffle.partitions": "2"}
    builder = spark_llm.configure(SparkSession.builder.master("local[2]"))
    for key, value in (conf | quiet | {"spark.sql.warehouse.dir": str(folder / "warehouse")}).items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    frame = f"SELECT id, concat('text ', id) AS text, concat('topic ', id % 20) AS topic FROM range(0, {rows}, 1, 2)"
    spark.sql(f"CREATE TEMP VIEW t AS {frame}")
    spark.sql("CREATE TEMP VIEW few AS SELECT * FROM t WHERE id < 200")
    line: dict[str, Any] = {"rows": rows}
    for name, query in QUERIES.items():
        naive, naive_calls = run(spark, query, folder, "false")
        found, calls = run(spark, query, folder, "true")
        whole = naive if "LIMIT" not in name else run(spark, query.split(" LIMIT")[0], folder, "true")[0]
        same = found == naive if "LIMIT" not in name else len(found) == 10 and not Counter(found) - Counter(whole)
        line[name] = {"naive_calls": naive_calls, "calls": calls, "right_rows": same}
    spark.stop()
    return line | {"python": sys.version.split()[0], "cpu": platform.processor(), "cores": os.cpu_count()}


def run(spark: SparkSession, query: str, folder: Path, enabled: str) -> tuple[list[Any], int]:
    for file in folder.glob("*.calls"):
        file.write_text("")
    spark.conf.set("spark.llm.optimize.enabled", enabled)
    rows = sorted(map(tuple, spark.sql(query).collect()))
    return rows, sum(len(file.read_text().split()) for file in folder.glob("*.calls"))


if __name__ == "__main__":
    main()
