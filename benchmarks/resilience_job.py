"""The Spark application that `resilience.py` disturbs: settings (JSON), rows, and the file for [[id, answer], …]."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pyspark.sql import SparkSession

import spark_llm

if __name__ == "__main__":
    conf, rows, out = json.loads(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    builder = SparkSession.builder.config("spark.ui.enabled", "false").config("spark.sql.shuffle.partitions", "4")
    for key, value in {**conf, "spark.llm.partitions": "2", "spark.executor.memory": "512m"}.items():
        builder = builder.config(key, value)
    spark = spark_llm.configure(builder).getOrCreate()
    text = f"SELECT id, llm('Q', v) a FROM (SELECT id, 'row ' || id AS v FROM range({rows}))"
    answers = [[row.id, row.a] for row in spark.sql(text).collect()]
    out.with_suffix(".part").write_text(json.dumps(answers))
    out.with_suffix(".part").replace(out)
    spark.stop()
