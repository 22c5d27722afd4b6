"""The progress line: a bar of the answered rows, the speed, and the share of the cache."""

from __future__ import annotations

import re

import pytest

from spark_llm.progress import BAR, progress_line, sum_clients


def counters(**given) -> dict[str, int]:
    names = ("asked", "rows", "prompt", "cached", "output", "spent", "errors")
    return {**dict.fromkeys(names, 0), **given}


@pytest.mark.parametrize(("rows", "asked", "full"), [(0, 0, 0), (0, 40, 0), (20, 40, BAR // 2), (40, 40, BAR)])
def test_the_bar_shows_the_answered_rows(rows, asked, full):
    line = progress_line(None, counters(rows=rows, asked=asked))
    bar = re.search(r"\[(#*)(-*)\]", line)
    assert len(bar[1]) == full
    assert len(bar[1]) + len(bar[2]) == BAR
    assert f"{rows} of {asked} rows" in line


def test_speed_counts_the_tokens_since_the_last_line(monkeypatch):
    monkeypatch.setattr("spark_llm.progress.time.monotonic", lambda: 12.0)
    before, now = counters(spent=1010), counters(prompt=3000, output=30, spent=3030, cached=1500, errors=2)
    line = progress_line((10.0, before), now)
    assert "1,010 tokens/s" in line
    assert "50 % of the prompt tokens from the cache" in line
    assert line.endswith("2 errors")


def client(name, **given):
    return {"client": name, **dict.fromkeys(("streams", "queued", "running", "cached", "errors"), 0), **given}


def test_queries_that_run_are_counted_together_and_those_of_before_not():
    clients = [
        client("ended", rows=90, prompt=900, output=9),
        client("runs", rows=2, queued=3, prompt=20, output=2, streams=1),
        client("ends just now", rows=3, running=1, prompt=30, output=3),
    ]
    rows = {"ended": 90, "ends just now": 1}
    assert sum_clients(clients, rows) == counters(rows=5, asked=9, prompt=50, output=5, spent=964)
    assert sum_clients(clients[:1], rows)["asked"] == 0
