"""The examples on the embedded model give the rows of `expected/`.

In float32, where no near tie falls another way on another processor. After a change of the model or of an example:
`SPARK_LLM_REGENERATE=1 pytest tests/examples/test_expected_rows.py`, then read the difference.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from spark_llm.tables import format_table
from tests.examples.test_sql_files import FILES, ROOT, rows_of, run_notebook, run_script

pytestmark = [pytest.mark.spark, pytest.mark.slow]
EXPECTED = Path(__file__).with_name("expected")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("worker")


@pytest.fixture
def embedded(spark_root, folder, monkeypatch):
    """A session on the embedded model, in the root of the repository."""
    monkeypatch.chdir(ROOT)
    session = spark_root.newSession()
    for key, value in {
        "spark.llm.engine": "native",
        "spark.llm.model": "default",
        "spark.llm.worker.dir": str(folder),
        "spark.llm.worker.idleSeconds": "20",
        "spark.llm.engine.args": json.dumps({"dtype": "float32"}),
    }.items():
        session.conf.set(key, value)
    yield session
    session.catalog.clearCache()


def table(frame) -> str:
    rows = [["NULL" if value is None else str(value) for value in row] for row in frame.collect()]
    return format_table([frame.columns, *rows], width=400) + "\n"


def check(name: str, shown: str) -> None:
    file = EXPECTED / f"{name}.txt"
    if os.environ.get("SPARK_LLM_REGENERATE"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(shown)
    assert shown == file.read_text()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_sql_file(embedded, file):
    [(_, frame)] = rows_of(embedded, file)
    check(file.stem, table(frame))


def test_dataframe_script(embedded):
    script = run_script()
    check("dataframe", table(script["angry_tickets"](embedded)) + "\n" + table(script["summaries"](embedded)))


def test_notebook(embedded, capsys):
    frames = run_notebook(embedded)
    check("notebook", "\n".join(map(table, frames)) + "\n" + capsys.readouterr().out)
