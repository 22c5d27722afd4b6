"""The generator of questions and the tables made by it."""

from __future__ import annotations

import json
import random

import pyarrow.parquet as pq
import pytest
from spark_llm.optimizer.ddl import parse_ddl

from training import filters, make_tables, opinions, topics, words
from training.examples import TOPICS, Example
from training.grammar import expand, pick, sentence
from training.kinds import KINDS
from training.lexicon import ADJECTIVES, THINGS, VICES, VIRTUES
from training.render import call_spec, prompt_text
from training.tagging import TAGS
from training.tasks import example


def draw(seed: int, count: int, held_out: bool = False) -> list[Example]:
    rng = random.Random(seed)
    return [example(rng, held_out) for _ in range(count)]


def test_same_seed_same_data():
    assert draw(3, 200) == draw(3, 200)
    assert draw(3, 200) != draw(4, 200)


@pytest.mark.parametrize("held_out", [False, True])
def test_answers_fit_their_questions(held_out):
    for asked in draw(5, 2000, held_out):
        if asked.labels:
            assert asked.answer in asked.labels
            assert len(set(asked.labels)) == len(asked.labels) >= 2
        if asked.function == "llm_filter":
            assert asked.answer in ("true", "false")
        if asked.function == "llm_extract":
            columns = [field["name"] for field in parse_ddl(asked.returns)["fields"]]
            assert list(json.loads(asked.answer)) == columns
        if asked.task == "rating":
            assert asked.answer in tuple("12345")


def test_copied_answers_stand_in_the_record():
    for asked in draw(6, 3000):
        if asked.task == "answer":
            assert asked.answer in json.dumps(asked.fields, ensure_ascii=False)
        if asked.task == "repeat":
            assert asked.answer in asked.fields.values()
        if asked.task == "recall":
            copied = json.loads(asked.answer) if asked.returns else {"": asked.answer}
            assert set(copied.values()) <= set(asked.fields.values())


def test_yes_and_no_are_both_common():
    filters = [asked for asked in draw(7, 6000) if asked.function == "llm_filter"]
    for task in {asked.task for asked in filters}:
        answers = [asked.answer for asked in filters if asked.task == task]
        assert 0.2 < answers.count("true") / len(answers) < 0.8, task


def test_held_out_names_are_never_in_training_rows():
    rng = random.Random(8)
    for held_out in (False, True):
        names = {words.invented_name(rng, held_out) for _ in range(500)}
        assert {words.is_held_out(name) for name in names} == {held_out}


def test_held_out_wordings_are_new_combinations_of_known_words():
    lists = (*filters._OPINION_ASKED.values(), *filters._KIDS_ASKED.values(), topics.URGENT, topics.TONES["angry"])
    for templates in lists:
        shown, hidden = ({pick(random.Random(i), templates, held) for i in range(3000)} for held in (False, True))
        assert shown | hidden == set(templates)
        assert not shown & hidden
        known = {word for template in shown for word in template.lower().strip("?.").split()}
        assert {word for template in hidden for word in template.lower().strip("?.").split()} <= known
        assert len(hidden) > len(templates) / 6


def test_facts_are_answered_by_what_the_tags_say():
    rng, seen = random.Random(14), set()
    for _ in range(400):
        asked = filters.filter_fact(rng, False)
        (kind, truth), (_, wanted) = (tag.split(":") for tag in (asked.gist, asked.tags[-1][1]))
        seen.add((kind, asked.answer))
        if kind == "year":
            truth, bound = int(asked.fields["year"]), int(asked.instruction.rstrip("?").split()[-1])
            later = any(word in asked.instruction for word in ("after", "later", "newer"))
            assert asked.answer == json.dumps(truth > bound if later else truth < bound)
        else:
            assert asked.answer == json.dumps(truth == wanted)
    assert len(seen) == 8


def test_only_strong_words_make_one_or_five_stars():
    rng = random.Random(15)
    strong = {word for sign in (-2, 2) for word in (*opinions._ADJECTIVES[sign],)}
    weak = [row for row in (KINDS["review"](rng, False) for _ in range(600)) if row.facts["stars"] in (2, 4)]
    for row in weak:
        verdicts = {tag for _, tag in row.tags if tag.startswith("verdict")}
        judged = " ".join(phrase for phrase, tag in row.tags if tag[-1] in "+-" and not tag.startswith("kids"))
        assert verdicts or not strong & set(judged.split())


def test_opinions_show_their_polarity():
    rng = random.Random(9)
    for _ in range(500):
        facts = KINDS["review"](rng, False).facts
        signs = set(facts["aspects"].values())
        if facts["polarity"] == "neutral":
            assert not signs
            assert facts["stars"] == 3
        if facts["polarity"] == "mixed":
            assert signs == {1, -1}
            assert facts["stars"] == 3
        if facts["polarity"] == "positive":
            assert facts["stars"] >= 4
        if facts["polarity"] == "negative":
            assert facts["stars"] <= 2


def test_templates():
    rng = random.Random(0)
    assert expand(rng, "[a [b|b]|a b] {x}", {"x": ["c"]}) == "a b c"
    assert sentence("is it?") == "Is it?"
    parts = [{pick(rng, [f"form {i}" for i in range(40)], held) for _ in range(600)} for held in (False, True)]
    assert parts[0].isdisjoint(parts[1])
    assert len(parts[0] | parts[1]) == 40


def test_prompt_is_the_planners():
    asked = Example("t", "llm_filter", "Is {review} kind?", {"year": 1999, "review": 'so "so"', "note": None}, "true")
    assert prompt_text(asked) == (
        '<|user|>Is "review" kind?\nAnswer with true or false.\n\n'
        '{\n"year": 1999,\n"review": "so \\"so\\"",\n"note": null\n}<|end|><|assistant|>'
    )
    assert call_spec(asked).result_type == "boolean"


def test_topics_are_those_of_the_rows():
    rng = random.Random(10)
    for kind, (labels, fact, needed) in TOPICS.items():
        rows = [KINDS[kind](rng, False) for _ in range(300)]
        assert {row.facts[fact] for row in rows} == set(labels)
        assert all(set(needed) <= set(row.fields) for row in rows)


def test_shipped_tables_are_those_of_the_generator():
    made = make_tables.make_tables(make_tables.SEED)
    assert {file.stem for file in make_tables.DATA.glob("*.parquet")} == {*made, "xquad_rag"}  # see NOTICE
    for name, table in made.items():
        assert pq.read_table(make_tables.DATA / f"{name}.parquet").equals(table)


def test_questions_are_answered_by_their_contexts():
    rows = make_tables.make_tables(make_tables.SEED)["questions"].to_pylist()
    for row in rows:
        assert sum(row["answer"] in context for context in row["contexts"]) >= 1
    assert len({tuple(sorted(row["contexts"])) for row in rows}) == make_tables.COMPANIES


def test_critics_tags_have_the_sign_of_the_review():
    rng = random.Random(13)
    for _ in range(500):
        row = KINDS["critique"](rng, False)
        signs = {tag[-1] for _, tag in row.tags if tag.startswith("clause")}
        if row.facts["polarity"] == "mixed":
            assert signs == {"+", "-"}
            assert row.facts["stars"] == 3
        else:
            assert ("+" if row.facts["polarity"] == "positive" else "-") in signs
        text = str(row.fields["review"]).lower()
        assert all(word.lower() in text for word, tag in row.tags if tag.startswith("word"))


def test_the_lexicon_has_no_word_of_both_signs_as_a_phrase():
    for good, bad in ((ADJECTIVES[1], ADJECTIVES[-1]), (THINGS[1], THINGS[-1]), (VIRTUES, VICES)):
        assert not set(good) & set(bad)
        assert len(set(good)) == len(good)
        assert len(set(bad)) == len(bad)


def test_gists_are_tags():
    for asked in draw(11, 1000):
        assert {asked.gist, *(tag for _, tag in asked.tags)} <= {"", *TAGS}


def test_a_beginner_gets_the_shorter_questions():
    rng = random.Random(12)
    lengths = [sum(len(prompt_text(example(rng, False, draws))) for _ in range(500)) for draws in (1, 2, 3)]
    assert lengths == sorted(lengths, reverse=True)
