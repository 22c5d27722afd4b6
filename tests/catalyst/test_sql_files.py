"""Every query of tests/sql gives the rows of the naive evaluation, and asks as often as it says."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.spark
FILES = sorted((Path(__file__).parent.parent / "sql").glob("*.sql"))


@dataclass(frozen=True)
class Case:
    name: str
    setup: tuple[str, ...]
    query: str
    calls: int | None
    ordered: bool
    naive: bool


def read(file: Path) -> list[Case]:
    """The queries of a file with their directives."""
    cases, setup = [], []
    for number, statement in enumerate(re.split(r";\s*(?:\n|$)", file.read_text())):
        comments = re.findall(r"^-- (.*)$", statement, re.MULTILINE)
        text = re.sub(r"^--.*$", "", statement, flags=re.MULTILINE).strip()
        if re.match("SELECT|WITH", text):
            asked = next((int(c.removeprefix("calls:")) for c in comments if c.startswith("calls:")), None)
            naive = "only optimized" not in comments
            cases.append(Case(f"{file.stem}-{number}", tuple(setup), text, asked, "ordered" in comments, naive))
        elif text:
            setup.append(text.replace("CREATE TEMP", "CREATE OR REPLACE TEMP"))
    return cases


@pytest.mark.parametrize("case", [case for file in FILES for case in read(file)], ids=lambda case: case.name)
def test_rows_and_calls(asking, case):
    for statement in case.setup:
        asking.spark.sql(statement)
    optimized, asked = asking.rows(case.query)
    assert case.calls in (None, asked)
    if case.naive:
        plain, _ = asking.rows(case.query, optimize_enabled="false")
        same = list if case.ordered else Counter
        assert same(map(str, optimized)) == same(map(str, plain))


def test_every_file_has_queries():
    assert all(read(file) for file in FILES)
    assert len(FILES) >= 5
