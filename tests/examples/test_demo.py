"""`spark-llm demo` on the embedded model: rows, progress and the report, as a newcomer sees them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from spark_llm.cli import DEMO
from spark_llm.tables import show_tables

ROOT = Path(__file__).resolve().parents[2]


def test_a_line_break_in_a_cell_keeps_its_row_in_one_line(capsys):
    show_tables(
        ["== a.sql\n", "id\tanswer\twanted\n", "1\ttwo\n", "lines\tx\n", "2\tone\t\n", "3\tb\ty\n", "Response code\n"]
    )
    shown = capsys.readouterr().out.splitlines()
    assert [line.split() for line in shown[4:]] == [["1", "two", "lines", "x"], ["2", "one"], ["3", "b", "y"]]


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
