"""Every .sql file of sql_examples/ gives the same rows with all rewrites on and all off."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from runpy import run_path

import pytest
from pyspark.sql import DataFrame, Row

pytestmark = pytest.mark.spark
ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "sql_examples").glob("*.sql"))


def statements(file: Path) -> list[str]:
    text = re.sub(r"^\s*--.*$", "", file.read_text(), flags=re.MULTILINE)
    return [part.strip() for part in text.split(";\n") if part.strip().rstrip(";")]


def rows_of(spark, file: Path) -> list[tuple[str, DataFrame]]:
    """Every query of a file but EXPLAIN with its result; the other statements are run."""
    frames = [(statement, spark.sql(statement.rstrip(";"))) for statement in statements(file)]
    return [(statement, frame) for statement, frame in frames if statement.upper().startswith("SELECT")]


def answers(spark, file: Path) -> list[tuple[str, Counter]]:
    return [(statement, Counter(map(shown, frame.collect()))) for statement, frame in rows_of(spark, file)]


def shown(row: Row) -> str:
    """A row without `answered`: over unordered elements the stub's answer depends on the planner's order."""
    return repr({name: value for name, value in row.asDict().items() if name != "answered"})


def run_script() -> dict:
    """What the DataFrame script defines."""
    return run_path(str(ROOT / "sql_examples" / "dataframe.py"))


def run_notebook(spark) -> list[DataFrame]:
    """Run a Databricks source file, whose cells are SQL or Python; the results of its SQL cells."""
    source = (ROOT / "sql_examples" / "notebook.py").read_text()
    names, frames = {"spark": spark}, []
    for cell in source.split("# COMMAND ----------"):
        magic = re.findall(r"^# MAGIC ?(.*)$", cell, flags=re.MULTILINE)
        if magic and magic[0].startswith("%sql"):
            frames.append(spark.sql("\n".join(magic)[len("%sql") :]))
            names["_sqldf"] = frames[-1]
        elif not magic:
            exec(compile(cell, "notebook.py", "exec"), names)
    return frames


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)  # the examples name their tables relative to it


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.name)
def test_rewrites_do_not_change_rows(spark, calls, file):
    optimized = answers(spark, file)
    asked = set(calls.lines())
    spark.conf.set("spark.llm.optimize.enabled", "false")
    try:
        naive = answers(spark, file)
    finally:
        spark.conf.unset("spark.llm.optimize.enabled")
    assert optimized == naive
    assert optimized
    assert asked


def test_notebook(spark, calls, capsys):
    frames = run_notebook(spark)
    assert frames
    assert all(frame.collect() for frame in frames)
    assert calls.count > 0
    assert "praised" in capsys.readouterr().out


def test_dataframe_script(spark, calls):
    script = run_script()
    summaries = script["summaries"](spark).collect()
    assert [row.review_id for row in summaries] == list(range(1, 11))
    assert script["angry_tickets"](spark).schema["urgent"].dataType.simpleString() == "boolean"


def test_examples_are_in_reading_order():
    assert [file.stem.split("_", 1)[1] for file in FILES] == [
        "first_query", "classify", "filter", "extract", "answer_over_contexts", "deduplicated_join",
        "two_predicates_explain", "real_questions",
    ]  # fmt: skip
