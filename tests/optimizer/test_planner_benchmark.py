"""The planner benchmark: its figures can be recounted from what it dumps."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "planner.py"
PASSAGES = [f"passage {i} " + "text " * 9 for i in range(6)]
TABLE = pa.table(
    {
        "question": [f"question {i}" for i in range(40)],
        "year": [None if i % 7 == 0 else 1990 + i % 3 for i in range(40)],
        "context1": [PASSAGES[i % 6] for i in range(40)],
        "context2": [PASSAGES[(i + 1 + i % 2) % 6] for i in range(40)],
        "others": [[PASSAGES[i % 4]] if i % 5 else None for i in range(40)],
    }
)


def measure(table: pa.Table, folder: Path, *arguments: str) -> tuple[dict, list[dict]]:
    pq.write_table(table, folder / "table.parquet")
    places = ["--dump", str(folder / "dump.parquet"), "--results", str(folder / "results.jsonl")]
    command = [sys.executable, str(SCRIPT), str(folder / "table.parquet"), *places, "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert (folder / "results.jsonl").read_text().endswith(done.stdout)
    return json.loads(done.stdout), pq.read_table(folder / "dump.parquet").to_pylist()


def recounted(rows: list[dict]) -> float:
    texts = ["".join(f"{n}: {v}, " for n, v in zip(row["fields"], row["values"], strict=True)) for row in rows]
    beginnings = {text[:end] for text in texts for end in range(1, len(text) + 1)}
    return 1 - len(beginnings) / sum(map(len, texts))


def test_dump_holds_every_cell_and_gives_the_hit_rate(tmp_path):
    line, rows = measure(TABLE, tmp_path)
    assert (line["table"], line["rows"], line["columns"]) == ("table", 40, 5)
    assert sorted(row["row"] for row in rows) == list(range(40))
    assert line["hit_rate"] == pytest.approx(recounted(rows), abs=1e-4)
    original = TABLE.to_pylist()
    for row in rows:
        shown = dict(zip(row["fields"], row["values"], strict=True))
        assert shown["question"] == original[row["row"]]["question"]
        assert shown["year"] == str(original[row["row"]]["year"] or "")


def test_columns_of_a_prefix_are_one_unordered_array(tmp_path):
    line, rows = measure(TABLE.drop_columns("others"), tmp_path, "--unordered", "context")
    assert line["columns"] == 3
    assert line["hit_rate"] == pytest.approx(recounted(rows), abs=1e-4)
    original = TABLE.to_pylist()
    for row in rows:
        contexts = [v for n, v in zip(row["fields"], row["values"], strict=True) if n == "context"]
        assert sorted(contexts) == sorted(original[row["row"]][c] for c in ("context1", "context2"))


def test_an_empty_table_shares_nothing(tmp_path):
    line, rows = measure(TABLE.slice(0, 0), tmp_path)
    assert (line["rows"], line["hit_rate"], rows) == (0, 0.0, [])
