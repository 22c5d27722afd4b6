"""What a plan predicts beside the native engine's own counters, on real tables."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "estimate.py"
DATA = Path(__file__).parents[2] / "shared" / "data"

pytestmark = pytest.mark.slow


def estimated(table: str, folder: Path, *arguments: str) -> list[dict]:
    file = table if ":" in table else str(DATA / f"{table}.parquet")
    if ":" not in table and not Path(file).exists():
        pytest.skip("the measured tables are not here")
    command = [sys.executable, str(SCRIPT), file, "--results", str(folder / "results.jsonl"), "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return list(map(json.loads, done.stdout.splitlines()))


def check(line: dict) -> None:
    assert abs(line["hit_rate_error"]) <= 3, line
    assert abs(line["prompt_error"]) <= 0.05, line


@pytest.mark.parametrize(
    ("table", "rows", "sample"),
    [("movies_authors_1019x5", 240, 240), ("movies_authors_1019x5", 240, 120), ("climate_fever_1535", 60, 60)],
)
def test_the_native_engine_counts_what_was_predicted(table, rows, sample, tmp_path):
    [line] = estimated(table, tmp_path, "--rows", str(rows), "--sample", str(sample))
    assert line["measured_by"] == "native engine"
    check(line)


@pytest.mark.parametrize(
    ("table", "drop", "sample"),
    [
        ("xquad_rag_1190x6", "answer", 500),
        ("climate_fever_1535", "claim_label", 500),
        ("movies_authors_1019x5", "", 300),
        ("synthetic:6000", "", 500),
        ("short:6000", "", 500),
    ],
)
def test_a_sample_that_misses_most_of_a_table_predicts_its_sharing(table, drop, sample, tmp_path):
    seeds = "--seeds", "1", "2", "3"
    lines = estimated(table, tmp_path, "--rows", "0", "--sample", str(sample), "--drop", drop, "--trie", *seeds)
    assert [line["seed"] for line in lines] == [1, 2, 3]
    for line in lines:
        assert line["rows"] > 1000
        check(line)
