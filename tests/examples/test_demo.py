"""`spark-llm demo` on the embedded model: rows, progress and the report, as a newcomer sees them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from spark_llm.cli import DEMO

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.spark
def test_demo_shows_rows_and_a_report():
    command = [str(Path(sys.executable).with_name("spark-llm")), "demo"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=540, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for name in DEMO:
        assert f"== sql_examples/{name}.sql\n" in done.stdout
    assert len(re.findall(r"^-+(  -+)*$", done.stdout, flags=re.MULTILINE)) == len(DEMO)  # a table each
    reports = re.findall(r"^spark-llm: .*", done.stderr, flags=re.MULTILINE)
    asked = [report for report in reports if not report.startswith("spark-llm: expected ")]
    assert len(asked) == len(reports) - len(asked) == len(DEMO)  # what was asked, and how that was foreseen
    for word in ("rows", "calls", "distinct calls", "prompt tokens", "cached", "output tokens"):
        assert all(word in report for report in asked)
