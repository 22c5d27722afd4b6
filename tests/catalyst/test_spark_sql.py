"""spark-sql without a Python driver: the JAR alone brings functions, answers, EXPLAIN's section and the report."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pyspark
import pytest

import spark_llm
from tests.conftest import Calls, stub_conf

pytestmark = pytest.mark.spark

SCRIPT = """
CREATE TABLE films USING csv AS SELECT id, concat('film ', id % 5) AS title FROM range(20);
SELECT count(*), count(DISTINCT x) FROM (SELECT llm('Rate it', title) AS x FROM films);
SELECT id FROM films WHERE llm_filter('Is it good?', title) ORDER BY id LIMIT 0;
EXPLAIN SELECT llm('Rate it', title) FROM films;
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spark_sql")
    calls = Calls(folder)
    spark_sql = Path(pyspark.__file__).parent / "bin" / "spark-sql"
    conf = {
        "spark.jars": spark_llm.jar_path(),
        "spark.llm.python": sys.executable,
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "2",
        # Listed besides the JAR's own registration: every rule is then injected twice.
        "spark.sql.extensions": "io.sparkllm.catalyst.LlmExtensions",
        "spark.plugins": "io.sparkllm.catalyst.LlmPlugin",
        "spark.llm.worker.dir": str(folder / "worker"),
        **stub_conf(folder),
    }
    (folder / "worker").mkdir(mode=0o700)
    settings = [part for key, value in conf.items() for part in ("--conf", f"{key}={value}")]
    command = [str(spark_sql), "--master", "local[2]", *settings, "-e", SCRIPT]
    home = {"SPARK_HOME": str(Path(pyspark.__file__).parent)}
    done = subprocess.run(
        command, cwd=folder, env=os.environ | home, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done, calls


def test_rows_and_calls(ran):
    done, calls = ran
    assert "20\t5" in done.stdout
    assert calls.count == 5


def test_explain_section(ran):
    assert "== Extended Information (LLM) ==" in ran[0].stdout
    assert "llm(Rate it) fields: title" in ran[0].stdout


def test_report_line(ran):
    assert re.search(
        r"spark-llm: 20 rows, 5 calls, 5 distinct calls, \d+ prompt tokens, \d+ cached, \d+ output tokens, 0 errors",
        ran[0].stderr,
    )


def test_plugin_takes_the_lease_and_gives_it_back(ran):
    assert list((ran[1].folder / "worker" / "leases").iterdir()) == []
