"""The text that the model sees."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from spark_llm.optimizer.cells import cells
from spark_llm.optimizer.columns import array_elements, encode_window
from spark_llm.optimizer.core import CallPlan, CallSpec, Field
from spark_llm.optimizer.errors import InvalidCall
from spark_llm.optimizer.identity import IdentityRule, row_seed
from spark_llm.optimizer.layout import lay_out
from spark_llm.optimizer.prompts import prepare
from spark_llm.serving.core import Call, Constraint, Request

from tests.optimizer.strategies import as_arrays, calls_with_rows, values

REVIEW = (Field("review"),)
NULL_SCHEMA = '{"type": "null"}'


def call(instruction="Sum up.", fields=REVIEW, function="llm", **more) -> CallSpec:
    result_type = more.pop("result_type", "boolean" if function == "llm_filter" else "string")
    return CallSpec(
        function, instruction, tuple(fields), more.pop("options", {}), result_type, more.pop("conf", {}), **more
    )


def classify(labels, **options) -> CallSpec:
    return call("", function="llm_classify", options={"choices": labels, **options})


def prompts_of(spec, columns) -> list[str]:
    prompt = prepare(spec)
    window = encode_window(prompt, [pa.array(c, pa.string()) for c in columns])
    asked = Call.from_dict(prompt.call)
    return [Request(0, asked, segments).text for segments in cells(window)]


def test_the_question_stands_behind_the_record_where_that_is_wanted():
    conf, columns = {"spark.llm.prompt.question": "last"}, [["fine"]]
    spec = call("Is {review} good?", function="llm_filter", conf=conf)
    record = '{\n"review": "fine"\n}\n\n'
    assert prompts_of(spec, columns) == [record + 'Is "review" good?\nAnswer with true or false.']
    without_question = call("", fields=REVIEW, conf=conf, options={}, result_type="string")
    assert prompts_of(without_question, columns) == ['{\n"review": "fine"\n}']
    by_row = call("Is {review} good?", fields=(*REVIEW, Field("b")), conf=conf, options={"inline": True})
    assert prompts_of(by_row, [["fine"], ["x"]]) == ['Is fine good?\n\n{\n"b": "x"\n}']
    first = IdentityRule.of(prepare(call("Is {review} good?", function="llm_filter")))
    assert IdentityRule.of(prepare(spec)).base != first.base


@given(calls_with_rows(), st.randoms())
def test_object_parses_to_the_row_in_any_order(drawn, random):
    spec, columns = drawn
    prompt = prepare(spec)
    window = encode_window(prompt, as_arrays(spec, columns))
    order = [random.sample(range(len(columns)), len(columns)) for _ in range(window.rows)]
    found = cells(window, order=np.array(order, np.int64).reshape(window.rows, len(columns)))
    for row, (segments, chosen) in enumerate(zip(found, order, strict=True)):
        parsed = json.loads("{\n" + "".join(segments))
        assert list(parsed) == [spec.fields[i].name for i in chosen]
        assert parsed == {f.name: column[row] for f, column in zip(spec.fields, columns, strict=True)}
        assert all(segment.endswith("\n") for segment in segments[:-1])
        assert segments[-1].endswith("\n}")


@given(calls_with_rows(), st.randoms())
def test_identity_ignores_the_order_of_fields_unless_fixed(drawn, random):
    spec, columns = drawn
    shuffled = random.sample(range(len(columns)), len(columns))

    def identities(order, options):
        own = CallSpec(spec.function, spec.instruction, tuple(spec.fields[i] for i in order), options)
        return IdentityRule.of(prepare(own)).identities(as_arrays(own, [columns[i] for i in order]), len(columns[0]))

    written = range(len(columns))
    assert identities(written, {}) == identities(shuffled, {})
    rows = {json.dumps([column[i] for column in columns]) for i in range(len(columns[0]))}
    assert len(set(identities(written, {}))) == len(rows)
    if columns[0] and shuffled != list(written):
        assert set(identities(written, {"field_order": "fixed"})).isdisjoint(
            identities(shuffled, {"field_order": "fixed"})
        )


@given(calls_with_rows())
def test_layout_keeps_every_row_and_cell(drawn):
    spec, columns = drawn
    window = encode_window(prepare(spec), as_arrays(spec, columns))
    rows, segments = lay_out(window)
    assert sorted(rows) == list(range(window.rows))
    for row, pieces in zip(rows, segments, strict=True):
        values = {f.name: column[row] for f, column in zip(spec.fields, columns, strict=True)}
        assert json.loads("{\n" + "".join(pieces)) == values


def test_call_is_what_serving_reads():
    options = {"stop": ["\n"], "temperature": 0.5, "system": "Be brief.", "max_tokens": 9}
    prompt = prepare(call(options=options, conf={"spark.llm.chat": "false"}))
    read = Call.from_dict(prompt.call)
    assert read == Call(
        prompt.spec.call_id, "Sum up.\n\n{\n", "Be brief.", 9, 0.5, 1.0, ("\n",), Constraint(), chat=False
    )


def test_calls_without_fields_send_no_segments():
    spec = call("Tell a joke.", fields=())
    assert prepare(spec).call["instruction"] == "Tell a joke."
    assert cells(encode_window(prepare(spec), [])) == []


def test_planned_order_is_the_order_of_the_cells():
    spec = call(fields=(Field("a"), Field("b")), plan=CallPlan((1, 0)))
    assert prompts_of(spec, [["x"], ["y"]]) == ['Sum up.\n\n{\n"b": "y",\n"a": "x"\n}']
    fixed = call(fields=(Field("a"), Field("b")), plan=CallPlan((1, 0)), options={"field_order": "fixed"})
    assert prompts_of(fixed, [["x"], ["y"]]) == ['Sum up.\n\n{\n"a": "x",\n"b": "y"\n}']
    with pytest.raises(ValueError, match="each of the 1 field indices once"):
        prepare(call(plan=CallPlan((1,))))


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("About {review}.", 'About "review".'),
        ("About {{review}}.", "About {review}."),
        ("A {{ alone, {other}, { review }", "A { alone, {other}, { review }"),
        ('Answer as {"a": {"b": 1}}', 'Answer as {"a": {"b": 1}}'),
        ("{{{review}}}", '{"review"}'),
    ],
)
def test_braces(written, read):
    assert prepare(call(written)).call["instruction"] == read + "\n\n{\n"


def test_inline_puts_values_where_the_reference_stands():
    spec = call(
        "Be brief.\nTranslate {review} into {lang}.",
        [*REVIEW, Field("lang"), Field("n", "json")],
        options={"inline": True},
    )
    prompt = prepare(spec)
    assert prompt.call["instruction"] == "Be brief.\n"
    columns = [["{lang}", None], ["fr", "de"], ['{"v":1}', None]]
    start = "Be brief.\nTranslate "
    assert prompts_of(spec, columns) == [
        start + '{lang} into fr.\n\n{\n"n": 1\n}',
        start + 'null into de.\n\n{\n"n": null\n}',
    ]
    everything = call("Translate {review}", options={"inline": True})
    assert prompts_of(everything, [["x"]]) == ["Translate x"]


def test_prompt_of_the_row_comes_first():
    spec = call("", [Field("question", "prompt"), *REVIEW])
    assert prompts_of(spec, [["Why {review}?"], ["bad"]]) == ['Why {review}?\n\n{\n"review": "bad"\n}']
    rows, segments = lay_out(encode_window(prepare(spec), [pa.array(["b", "a", "b"]), pa.array(["1", "1", "1"])]))
    assert [segments[rows.index(i)][0][0] for i in range(3)] == ["b", "a", "b"]


def test_unordered_arrays_are_multisets_with_one_line_per_element():
    spec = call(fields=(Field("docs", "json"),), options={"unordered": ["docs"]})
    prompt = prepare(spec)
    arrays = [pa.array(['{"v":["b","a","a"]}', '["a","b","a"]', '{"v":["a","b"]}', None, '{"v":[]}'])]
    found = cells(encode_window(prompt, arrays))
    assert found[0] == found[1]
    assert found[2] == ('"docs": [\n', '"a",\n', '"b"\n]\n}')
    assert found[0] == ('"docs": [\n', '"a",\n', '"a",\n', '"b"\n]\n}')
    assert found[3:] == [('"docs": null\n}',), ('"docs": []\n}',)]
    identities = IdentityRule.of(prompt).identities(arrays, 5)
    assert identities[0] == identities[1]
    assert len(set(identities)) == 4


@given(st.lists(st.lists(values | st.sampled_from([1, 12, 1.5, "1", "a" * 40, "a" * 41]), max_size=5), max_size=6))
def test_elements_are_found_whatever_came_before(arrays):
    known: dict[str, str] = {}
    alike: dict[str, str] = {}
    for separators in ((",", ":"), (" , ", ": ")):
        for array in arrays:
            found = array_elements(json.dumps(array, separators=separators), known, alike)
            assert found == sorted(json.dumps(element, separators=separators) for element in array)


def test_unordered_elements_keep_their_text():
    spec = call(fields=(Field("docs", "json"),), options={"unordered": ["docs"]})
    array = '[1.10, 12345678901234567890.5,{"a":[1, 2]} ,"a\\",b", null]'
    [segments] = cells(encode_window(prepare(spec), [pa.array([array])]))
    assert sorted(segments) == sorted(
        ['"docs": [\n', "12345678901234567890.5,\n", '{"a":[1, 2]},\n', '"a\\",b",\n', "1.10,\n", "null\n]\n}"]
    )


def test_identity_follows_what_the_engine_is_told():
    def identity(**changes):
        prompt = prepare(call(**{"options": {}, **changes}))
        return IdentityRule.of(prompt).identities([pa.array(["x"])], 1)[0]

    same = [
        identity(),
        identity(options={"on_error": "fail"}),
        identity(options={"model": "m"}),
        identity(plan=CallPlan((0,))),
    ]
    assert len(set(same)) == 1
    changed = [{"max_tokens": 9}, {"seed": 1}, {"seed": 2}, {"temperature": 0.5}, {"choices": ["x"]}, {"system": "s"}]
    assert len({identity(), identity(instruction="Else."), *(identity(options=o) for o in changed)}) == len(changed) + 2
    assert 0 <= row_seed(identity()) < 2**63


@pytest.mark.parametrize(
    ("spec", "kind", "value", "max_tokens", "ending"),
    [
        (call(), "none", None, 256, "Sum up."),
        (call(conf={"spark.llm.maxTokens": "64"}), "none", None, 64, "Sum up."),
        (call(function="llm_filter"), "choices", ["true", "false"], 6, "Answer with true or false."),
        (classify(["good", "schön"]), "choices", ["good", "schön"], 7, '\nAnswer with one of ["good", "schön"].'),
        (classify(["a", "b"], instruction="Tone?"), "choices", ["a", "b"], 2, 'Tone?\nAnswer with one of ["a", "b"].'),
        (call(options={"regex": "[0-9]+"}), "regex", "[0-9]+", 256, "Sum up."),
        (call(options={"json_schema": NULL_SCHEMA}), "json_schema", NULL_SCHEMA, 256, f"JSON Schema {NULL_SCHEMA}."),
        (call(result_type="long"), "json_schema", '{"type": "integer"}', 256, "the SQL type BIGINT."),
    ],
)
def test_answers(spec, kind, value, max_tokens, ending):
    prompt = prepare(spec)
    assert prompt.call["constraint"] == {"kind": kind, "value": value}
    assert prompt.call["max_tokens"] == max_tokens
    assert prompt.call["instruction"].removesuffix("\n\n{\n").endswith(ending)


@pytest.mark.parametrize(
    ("spec", "condition", "part"),
    [
        (call(options={"maxtokens": 1}), "LLM_UNKNOWN_OPTION", "accepted: model, max_tokens"),
        (
            call(function="llm_filter", options={"choices": ["a"]}),
            "LLM_UNKNOWN_OPTION",
            "llm_filter() has no option 'choices'",
        ),
        (call(options={"max_tokens": 0}), "LLM_BAD_OPTION", "must be a constant INT >= 1, got 0"),
        (call(options={"max_tokens": True}), "LLM_BAD_OPTION", "got True"),
        (call(options={"top_p": 1.5}), "LLM_BAD_OPTION", ">= 0 and <= 1, got 1.5"),
        (call(options={"seed": 2**63}), "LLM_BAD_OPTION", "seed"),
        (call(options={"stop": []}), "LLM_BAD_OPTION", "a constant non-empty ARRAY<STRING>"),
        (call(options={"field_order": "random"}), "LLM_BAD_OPTION", "one of 'auto', 'fixed'"),
        (call(options={"choices": ["a"], "regex": "a"}), "LLM_MALFORMED_CALL", "choices and regex exclude each other"),
        (call(options={"unordered": ["docs"]}), "LLM_UNKNOWN_FIELD", "'docs', which is no field"),
        (call(options={"unordered": ["review"]}), "LLM_UNKNOWN_FIELD", "none is an array"),
        (call(options={"json_schema": "{"}), "LLM_BAD_CONSTRAINT", "no JSON"),
        (call(options={"json_schema": "[]"}), "LLM_BAD_CONSTRAINT", "a JSON object"),
        (call(fields=REVIEW * 2), "LLM_MALFORMED_CALL", "distinct names"),
        (call(function="llm_classify", options={"choices": ["a", "a"]}), "LLM_MALFORMED_CALL", "two distinct labels"),
        (call(result_type="binary"), "LLM_MALFORMED_CALL", "cannot have the type BINARY"),
        (call(conf={"spark.llm.maxTokens": "many"}), "LLM_BAD_CONF", "spark.llm.maxTokens"),
    ],
)
def test_unusable_calls_say_what_is_accepted(spec, condition, part):
    with pytest.raises(InvalidCall) as caught:
        prepare(spec)
    assert caught.value.condition == condition
    assert part in str(caught.value)


def test_columns_must_match_fields():
    with pytest.raises(ValueError, match=r"one column per field \(1\), got 0"):
        encode_window(prepare(call()), [])
