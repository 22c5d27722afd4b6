"""The progress line: a bar of the answered rows, the speed, and the share of the cache."""

from __future__ import annotations

import re

import pytest

from spark_llm.progress import BAR, progress_line, sum_clients


def counters(**given) -> dict[str, int]:
    names = ("asked", "rows", "prompt", "cached", "output", "errors")
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
    before, now = counters(prompt=1000, output=10), counters(prompt=3000, output=30, cached=1500, errors=2)
    line = progress_line((10.0, before), now)
    assert "1,010 tokens/s" in line
    assert "50 % of the prompt tokens from the cache" in line
    assert line.endswith("2 errors")


def test_clients_are_counted_together():
    clients = [counters(rows=2, queued=3, running=0), counters(rows=3, queued=0, running=1)]
    assert sum_clients(clients) == counters(rows=5, asked=9)
