"""The evaluation: comparison of answers, baselines, and real tables."""

from __future__ import annotations

import random

import pytest

from tests.conftest import DATA
from tests.training.test_data import draw
from training.baselines import TfidfRegression, majority
from training.evaluate import Baseline, by_task, same
from training.examples import Example
from training.real import TABLES, normal, rows_of


def test_json_is_compared_by_value():
    asked = Example("x", "llm_extract", "", {}, '{"a": 1, "b": [true]}', returns="a INT, b ARRAY<BOOLEAN>")
    assert same(asked, '{"b":[true],"a":1}')
    assert not same(asked, '{"a": 1, "b": []}')
    assert not same(asked, '{"a": 1')
    assert not same(asked, None)


def test_regression_learns_words_and_keeps_to_the_labels():
    rng = random.Random(0)
    words = {"yes": "good fine nice", "no": "bad poor sad", "so": "plain usual"}
    answers = [rng.choice(sorted(words)) for _ in range(300)]
    texts = [f"it is {rng.choice(words[a].split())} {rng.choice('abc')}" for a in answers]
    model = TfidfRegression(texts[:200], answers[:200])
    assert model.predict(texts[200:]) == answers[200:]
    assert model.predict(["it is good"], [("no", "so")])[0] in ("no", "so")
    assert model.predict(["it is good"], [("other",)]) == ["other"]
    assert majority(["a", "b", "a"]) == pytest.approx(2 / 3)


def test_perfect_answers_count_as_such_beside_the_baselines():
    examples = draw(1, 400)
    figures = by_task(examples, [asked.answer for asked in examples], Baseline(400, 0))
    assert sum(row["examples"] for row in figures.values()) == 400
    assert {row["accuracy"] for row in figures.values()} == {1.0}
    assert all(row["valid"] == 1.0 for row in figures.values() if "valid" in row)
    assert sum("valid" in row for row in figures.values()) >= 4
    assert figures["sentiment_2"]["majority"] == 0.5
    assert {"filter_topic", "filter_tone"} <= {task for task, row in figures.items() if "tfidf" in row}


@pytest.mark.skipif(not DATA.exists(), reason="needs the tables of ../shared/data")
@pytest.mark.parametrize("name", TABLES)
def test_real_tables_have_what_is_measured(name):
    _, file, needed = TABLES[name]
    rows = rows_of(DATA / file, needed)
    assert len(rows) > 600
    assert all(all(row.values()) for row in rows)
    assert rows == rows_of(DATA / file, needed)


def test_normal_answers():
    assert normal("The  308 points!") == normal("308 Points")
