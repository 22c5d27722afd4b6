"""The stub engine: a deterministic model that obeys constraints and counts what it is asked."""

import json
import random
import re

import pytest
from spark_llm.serving.core import Call, Constraint, ModelRef, Request
from spark_llm.serving.engines.sampler import sample_regex, sample_schema
from spark_llm.serving.engines.stub import StubEngine, common_prefix
from spark_llm.serving.local import LocalExchange


def ask(engine, segments, call=None, **request):
    call = call or Call("c", "Judge.\n\n{\n")
    with LocalExchange(engine, call) as exchange:
        exchange.submit([Request(7, call, tuple(segments), **request)])
        (finished,) = exchange.poll(1.0)
    assert finished.request_id == 7
    return finished


def constrained(kind, value, **options):
    return Call("c", "Judge.\n\n{\n", constraint=Constraint(kind, value), **options)


def test_field_order_does_not_change_the_answer_but_values_and_seed_do():
    engine = StubEngine({})
    ab, ba = ['"a": 1,\n', '"b": "x"\n}'], ['"b": "x",\n', '"a": 1\n}']
    answers = [ask(engine, ab).text, ask(engine, ba).text, ask(engine, ['"a": 2,\n', '"b": "x"\n}']).text]
    assert answers[0] == answers[1] != answers[2]
    assert ask(engine, ab, seed=1).text != ask(engine, ab, seed=2).text


def test_choices_are_picked_from_the_list():
    call = constrained("choices", ["yes", "no"])
    answers = {ask(StubEngine({}), [f'"a": {i}\n}}'], call).text for i in range(20)}
    assert answers == {"yes", "no"}


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 5},
        "score": {"type": ["integer", "null"], "minimum": 1, "maximum": 5},
        "tags": {"type": "array", "items": {"enum": ["x", "y"]}, "minItems": 1, "maxItems": 2},
        "day": {"type": "string", "format": "date"},
        "ok": {"$ref": "#/$defs/flag"},
    },
    "$defs": {"flag": {"type": "boolean"}},
}


def test_schema_instances_are_valid():
    drawn = [sample_schema(SCHEMA, random.Random(seed)) for seed in range(50)]
    for value in drawn:
        assert set(value) == set(SCHEMA["properties"])
        assert 1 <= len(value["name"]) <= 5
        assert value["score"] in {None, 1, 2, 3, 4, 5}
        assert 1 <= len(value["tags"]) <= 2
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", value["day"])
    assert {value["ok"] for value in drawn} == {True, False}
    answer = ask(StubEngine({}), ['"a": 1\n}'], constrained("json_schema", json.dumps(SCHEMA)))
    assert set(json.loads(answer.text)) == set(SCHEMA["properties"])


@pytest.mark.parametrize("pattern", [r"\d{3}-[a-f]+", r"(yes|no)?", r"[^a-z]\w*x", r"-?\d+(\.\d+)?"])
def test_regex_texts_match(pattern):
    assert all(re.fullmatch(pattern, sample_regex(pattern, random.Random(seed))) for seed in range(50))


@pytest.mark.parametrize("pattern", ["(", r"(a|b)\1", "a(?=b)"])
def test_unusable_regex_is_a_row_error(pattern):
    assert ask(StubEngine({}), ["x"], constrained("regex", pattern)).error.condition == "LLM_BAD_CONSTRAINT"


def test_long_answers_are_cut():
    finished = ask(StubEngine({}), ["x"], Call("c", max_tokens=2))
    assert (finished.text[:5], len(finished.text), finished.finish_reason) == ("stub:", 8, "length")


def test_marked_rows_fail_and_calls_are_counted(tmp_path):
    engine = StubEngine({"fail_marker": "BAD", "calls_dir": str(tmp_path), "batch": 2})
    call = Call("c", "p")
    with LocalExchange(engine, call) as exchange:
        exchange.submit([Request(i, call, ("BAD" if i == 3 else "ok",)) for i in range(5)])
        finished = [row for _ in range(3) for row in exchange.poll(0.0)]
        assert [row.request_id for row in finished if row.error] == [3]
        assert (exchange.totals.calls, exchange.totals.errors) == (5, 1)
    assert [len(p.read_text().splitlines()) for p in tmp_path.glob("*.calls")] == [5]


def test_usage_counts_the_prefix_shared_with_the_previous_prompt():
    engine = StubEngine({})
    first = ask(engine, ["x" * 400], Call("c"))
    second = ask(engine, ["x" * 200 + "y" * 200], Call("c"))
    assert (first.usage.prompt, first.usage.cached) == (100, 0)
    assert (second.usage.prompt, second.usage.cached) == (100, 50)
    assert common_prefix("abc", "abd") == 2
    assert common_prefix("", "a") == 0


def test_echo_and_cancel():
    engine = StubEngine({"echo": True})
    assert ask(engine, ["q" * 9000], Call("c", "p", system="s")).text == "sp" + "q" * 9000
    exchange = LocalExchange(engine, Call("c"))
    exchange.submit([Request(1, Call("c"), ("x",))])
    exchange.cancel()
    assert exchange.poll(0.1) == []
    assert not engine.has_work()


def test_exchanges_of_one_process_share_the_engine_of_a_model():
    model, call = ModelRef(engine="stub", args={"delay_ms": 0}), Call("c")
    usages = []
    for _ in range(2):
        with LocalExchange.shared(model, call) as exchange:
            exchange.submit([Request(0, call, ("x" * 40,))])
            usages.append(exchange.poll(1.0)[0].usage.cached)
    assert usages == [0, 10]
