"""Every .sql file of sql_examples/ gives the same rows with all rewrites on and all off."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

pytestmark = pytest.mark.spark
ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "sql_examples").glob("*.sql"))


def statements(file: Path) -> list[str]:
    text = re.sub(r"^\s*--.*$", "", file.read_text(), flags=re.MULTILINE)
    return [part.strip() for part in text.split(";\n") if part.strip().rstrip(";")]


def answers(spark, file: Path) -> list[tuple[str, Counter]]:
    """The rows of every query of a file, without the text of EXPLAIN."""
    found = []
    for statement in statements(file):
        rows = spark.sql(statement.rstrip(";")).collect()
        if not statement.upper().startswith("EXPLAIN"):
            found.append((statement, Counter(map(repr, rows))))
    return found


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
    """A Databricks source file: cells are SQL or Python."""
    source = (ROOT / "sql_examples" / "notebook.py").read_text()
    names = {"spark": spark}
    ran = Counter()
    for cell in source.split("# COMMAND ----------"):
        magic = re.findall(r"^# MAGIC ?(.*)$", cell, flags=re.MULTILINE)
        if magic and magic[0].startswith("%sql"):
            names["_sqldf"] = spark.sql("\n".join(magic)[len("%sql") :])
            assert names["_sqldf"].collect()
            ran["sql"] += 1
        elif not magic:
            exec(compile(cell, "notebook.py", "exec"), names)
            ran["python"] += 1
    assert ran["sql"] >= 1
    assert ran["python"] >= 2
    assert calls.count > 0
    assert "praised" in capsys.readouterr().out


def test_dataframe_script(spark, calls):
    from runpy import run_path

    script = run_path(str(ROOT / "sql_examples" / "dataframe.py"))
    summaries = script["summaries"](spark).collect()
    assert [row.review_id for row in summaries] == list(range(1, 11))
    assert script["angry_tickets"](spark).schema["urgent"].dataType.simpleString() == "boolean"
