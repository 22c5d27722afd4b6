"""Constrained answers of the native engine: always of the constraint's language, with few model steps."""

import json
import random
import re
import threading
import time
from itertools import product

import numpy as np
import pytest
from spark_llm.optimizer.prompts import prepare
from spark_llm.serving.core import Call, Constraint, Request
from spark_llm.serving.grammar import Grammar, _mask_of
from spark_llm.serving.models.directory import find_model

from tests.serving.native_checkpoints import constrained, drain, engine_for, requests_for, write_checkpoint
from training.examples import Example
from training.kinds import profile
from training.render import call_spec, segments

ROWS = [(f'"review": "The {i} quick brown fox"\n}}',) for i in range(8)]
SCHEMA = {
    "type": "object",
    "properties": {
        "actor": {"type": "string", "maxLength": 8},
        "score": {"type": "integer", "minimum": 0, "maximum": 999},
        "label": {"enum": ["positive", "negative"]},
        "seen": {"type": "boolean"},
    },
    "required": ["actor", "score", "label", "seen"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def engine(checkpoint):
    return engine_for(checkpoint)


def ask(engine, call: Call, rows=ROWS):
    before = engine.stats()["steps"]
    engine.submit(requests_for(call, rows))
    finished = drain(engine)
    assert not any(f.error for f in finished.values())
    return [finished[i] for i in range(len(rows))], engine.stats()["steps"] - before


@pytest.mark.parametrize(
    "choices",
    [["positive", "negative"], ["a", "ab", "abc"], ['say "no"', "back\\slash", "line\nbreak", "naïve – 日本"]],
    ids=["words", "prefixes", "characters"],
)
def test_choices_are_among_the_set(engine, choices):
    finished, _ = ask(engine, constrained("choices", choices, max_tokens=32))
    assert all(f.text in choices and f.finish_reason == "stop" for f in finished)


def test_a_choice_needs_one_model_step_when_its_first_token_decides(engine):
    finished, steps = ask(engine, constrained("choices", ["true", "false"], max_tokens=32))
    assert all(f.text in ("true", "false") for f in finished)
    assert steps == 1


LABELS = {
    "syllables": ["".join(way) for way in product(("ka", "lo"), repeat=4)],
    "cities": ["New York", "New Jersey", "Newcastle", "Newport", "Boston"],
    "prefixes": ["a", "ab", "abc", "abcd", "abcde"],
    "numbers": [f"category {i}" for i in range(120)],
    "phrases": [
        f"{very}{how} {what}" for very in ("", "very ") for how in ("good", "bad") for what in ("film", "cast")
    ],
}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_a_choice_of_many_labels_needs_one_step_after_its_prompt(checkpoint, monkeypatch, labels, temperature):
    """As many decisions as there are branches, in one step: the answers of one step for each of them."""
    call = constrained("choices", labels, max_tokens=40, temperature=temperature)
    rows = [(f'"review": "{i}"\n',) for i in range(24)]

    def answers():
        engine = engine_for(checkpoint, kv_tokens=8192)
        engine.submit(requests_for(call, rows, seed=3))
        finished = drain(engine)
        assert all(f.text in labels for f in finished.values())
        engine._scheduler.cache.clear()
        assert engine._scheduler.cache.pool.free == engine._scheduler.cache.pool.num_pages
        return [finished[i].text for i in range(len(rows))], engine.stats()

    together, few = answers()
    monkeypatch.setattr("spark_llm.serving.choices.MOST_AHEAD", 0)
    one_by_one, many = answers()
    assert together == one_by_one
    assert few["steps"] <= min(2, many["steps"])
    assert many["steps"] >= (4 if labels is LABELS["syllables"] else 1)
    assert few["prefill_tokens"] == many["prefill_tokens"]


def test_more_than_a_step_takes_is_decided_in_several(checkpoint, monkeypatch):
    monkeypatch.setattr("spark_llm.serving.choices.MOST_AHEAD", 3)
    engine = engine_for(checkpoint)
    finished, steps = ask(engine, constrained("choices", LABELS["phrases"], max_tokens=40))
    assert all(f.text in LABELS["phrases"] for f in finished)
    assert steps > 2


def test_an_only_choice_needs_no_model(engine):
    finished, steps = ask(engine, constrained("choices", ["yes"]))
    assert [f.text for f in finished] == ["yes"] * len(ROWS)
    assert steps == 0


@pytest.mark.parametrize("pattern", ["[0-9]{3}-[a-f]+x", "(yes|no), (very )?(good|bad)"])
def test_regular_expressions_match(engine, pattern):
    finished, _ = ask(engine, constrained("regex", pattern, max_tokens=40, temperature=1.0))
    for f in finished:
        assert f.finish_reason == "length" or re.fullmatch(pattern, f.text)
    assert any(f.finish_reason == "stop" for f in finished)


def test_alternatives_that_share_a_part_of_a_character(engine):
    finished, _ = ask(engine, constrained("regex", "日(本|曜)", max_tokens=32))
    assert {f.text for f in finished} <= {"日本", "日曜"}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_json_is_valid_against_its_schema(engine, temperature):
    call = constrained("json_schema", json.dumps(SCHEMA), max_tokens=120, temperature=temperature)
    finished, steps = ask(engine, call)
    for f in finished:
        value = json.loads(f.text)
        assert list(value) == list(SCHEMA["properties"])
        assert isinstance(value["actor"], str)
        assert isinstance(value["score"], int)
        assert 0 <= value["score"] <= 999
        assert value["label"] in ("positive", "negative")
        assert isinstance(value["seen"], bool)
    assert steps < max(f.usage.output for f in finished) / 2, "forced text is not generated token by token"


def test_forced_text_changes_no_choice_of_the_model(checkpoint, engine, monkeypatch):
    """Where only the spelling of forced text may differ, masked decoding alone gives the same values."""
    call = constrained("regex", "answer: (true|false); again: (true|false)", max_tokens=80)
    with_jumps, few = ask(engine, call)
    monkeypatch.setattr("spark_llm.serving.grammar.Grammar.forced", lambda self: [])
    masked, many = ask(engine_for(checkpoint), call)
    assert few * 2 < many
    assert all(re.fullmatch(call.constraint.value, f.text) for f in [*with_jumps, *masked])


def test_jumps_over_forced_text_save_steps_and_change_no_value(checkpoint, monkeypatch):
    """A flat JSON object of four fields, against masked decoding token by token: same values, 1.5 times fewer steps."""
    kinds = {"sentiment": ["positive", "negative", "mixed"], "score": [1, 2, 3], "genre": ["drama", "comedy"]}
    fields = {**{name: {"enum": values} for name, values in kinds.items()}, "seen": {"type": "boolean"}}
    schema = {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
    call = constrained("json_schema", json.dumps(schema), max_tokens=200)
    with_jumps, few = ask(engine_for(checkpoint), call)
    fixed = Grammar.forced

    def spelled_one_by_one(self):
        """The tokens that forced text would have, each of them asked for: the mask allows no other."""
        ahead = fixed(self)
        if ahead:
            self.mask = _mask_of(ahead[:1], len(self.mask))
        return []

    monkeypatch.setattr(Grammar, "forced", spelled_one_by_one)
    masked, many = ask(engine_for(checkpoint), call)
    assert [json.loads(f.text) for f in with_jumps] == [json.loads(f.text) for f in masked]
    assert few * 1.5 <= many


def test_four_json_fields_take_fewer_steps_than_masked_decoding_for_the_same_values(monkeypatch):
    """The embedded model extracts, with forced text and with nothing but masks, which spell it as the model likes."""
    columns = {"year": "INT", "city": "STRING", "product": "STRING", "company": "STRING"}
    returns = ", ".join(f"{name} {kind}" for name, kind in columns.items())
    rng, records = random.Random(3), []
    while len(records) < 24:
        record = profile(rng, held_out=False)
        records += [record.fields] if record.facts.keys() >= {"year", "city", "product", "name"} else []

    def extract():
        engine, requests = engine_for(find_model("default"), kv_tokens=1 << 15), []
        for i, fields in enumerate(records):
            prompt = prepare(call_spec(Example("extract", "llm_extract", "", fields, "", returns=returns)))
            requests.append(Request(i, Call.from_dict(dict(prompt.call)), segments(prompt, fields)))
        engine.submit(requests)
        finished = drain(engine, check=False)
        return [json.loads(finished[i].text) for i in range(len(records))], engine.stats()["steps"]

    with_forced_text, few = extract()
    monkeypatch.setattr(Grammar, "forced", lambda self: [])
    masked, many = extract()
    assert with_forced_text == masked
    assert [[*value] for value in masked] == [[*columns]] * len(records)
    assert many >= 1.5 * few


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("regex", "(a"),
        ("json_schema", '{"type": "nonsense"}'),
        ("json_schema", "{"),
        ("choices", []),
        ("choices", [""]),
    ],
)
def test_unusable_constraints_are_named(engine, kind, value):
    engine.submit(requests_for(constrained(kind, value), ROWS[:1]))
    error = drain(engine)[0].error
    assert error.condition == "LLM_BAD_CONSTRAINT"
    assert error.message.startswith(f"the {kind} is not usable: ")


@pytest.mark.parametrize("threads", [1, 3])
def test_grammars_that_advance_together_allow_what_each_would_alone(engine, monkeypatch, threads):
    """Filled by several threads, each row of the masks by one of them, and places that others have left are used."""
    monkeypatch.setattr("spark_llm.serving.grammar.SPLIT_SECONDS", 0.0)
    kinds = [("regex", "[a-z]{1,20}"), ("regex", "(a[0-9]|b[x-z])+"), ("json_schema", json.dumps(SCHEMA))]
    alone = [engine._grammars.matcher(Constraint(*kinds[i % 3])) for i in range(20)]
    together = [engine._grammars.matcher(Constraint(*kinds[i % 3])) for i in range(20)]
    batch = engine._grammars.batch(threads)
    places, fillers = batch.join(together), set()
    fill = batch._fill_some
    batch._fill_some = lambda *some: (fillers.add(threading.get_ident()), time.sleep(0.01), fill(*some))
    rng = random.Random(3)
    for step in range(4):
        tokens = [rng.choice(sorted({*allowed(grammar)} - {*engine._grammars.stop_ids})) for grammar in alone]
        ended = [grammar.accept(token) and grammar.finished for grammar, token in zip(alone, tokens, strict=True)]
        decided, refused = batch.advance(tokens, places)
        assert not refused
        assert all(place in decided for place, end in zip(places, ended, strict=True) if end)
        assert all((batch.masks[place] == grammar.mask).all() for place, grammar in zip(places, alone, strict=True))
        for place in [place for place in places if place in decided or place == places[step]]:
            i = places.index(place)
            batch.leave(place)
            del alone[i], places[i]
    assert len(fillers) == threads


def allowed(grammar):
    """The tokens that may come next."""
    return np.flatnonzero(np.unpackbits(grammar.mask.view(np.uint8), bitorder="little")).tolist()


def test_equal_constraints_are_compiled_once(engine):
    compiled = len(engine._grammars._compiled)
    ask(engine, constrained("choices", ["one", "two"]))
    ask(engine, constrained("choices", ["one", "two"], system="other"))
    assert len(engine._grammars._compiled) == compiled + 1
