"""The estimate of a call: tokens, cache, seconds and money."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from spark_llm.optimizer.columns import encode_window
from spark_llm.optimizer.core import CallSpec, Field, Term
from spark_llm.optimizer.engine_profile import EngineProfile, Prices, Speed, engine_profile
from spark_llm.optimizer.errors import InvalidCall
from spark_llm.optimizer.layout import lay_out
from spark_llm.optimizer.plan import InputSize, plan_call
from spark_llm.optimizer.plan_conjunction import plan_conjunction
from spark_llm.optimizer.prompts import prepare
from spark_llm.optimizer.statistics import estimate_distinct
from spark_llm.serving.engines.stub import common_prefix

FILMS = [f"film {i % 4} " + "plot " * 40 for i in range(64)]
REVIEWS = [f"review {i}" for i in range(64)]
CHARACTERS = EngineProfile(count=lambda texts: np.array([len(text) for text in texts], float))


def estimate(**conf: str):
    settings = {f"spark.llm.{key.replace('_', '.')}": value for key, value in conf.items()}
    spec = CallSpec("llm_filter", "Is it good?", (Field("review"), Field("film")), conf=settings)
    return plan_call(spec, [REVIEWS, FILMS], 64).estimate


def test_a_cache_of_one_prompt_serves_all_that_sorted_rows_share():
    assert estimate(engine_args=json.dumps({"kv_tokens": 200})) == estimate()


def test_a_cache_smaller_than_a_prompt_serves_less():
    unbounded, bounded = estimate(), estimate(engine_args=json.dumps({"kv_tokens": 20}))
    assert bounded["prompt_tokens"] == unbounded["prompt_tokens"]
    assert 0 < bounded["cached_tokens"] < 0.5 * unbounded["cached_tokens"]
    assert estimate(engine_args=json.dumps({"kv_tokens": 3}))["cached_tokens"] < 0.05 * unbounded["cached_tokens"]


def test_vllm_serves_whole_blocks():
    exact, blocks = estimate()["cached_tokens"], estimate(engine="vllm")["cached_tokens"]
    assert exact - 16 * 63 <= blocks < exact


@pytest.mark.parametrize("args", ["{", "[]", "{}", '{"kv_tokens": "many"}', '{"kv_tokens": 0}'])
def test_settings_that_name_no_capacity_count_as_unbounded(args):
    assert estimate(engine_args=args) == estimate()


def plan(columns, size=None, engine=None, fields=("review", "film"), **options):
    return plan_call(
        CallSpec("llm_filter", "Is it good?", tuple(map(Field, fields)), options), columns, size, engine=engine
    )


def test_a_whole_sample_is_estimated_as_it_will_be_asked():
    """At one token per character, where the trie of the texts is that of the tokens."""
    spec = CallSpec("llm_filter", "Is it good?", (Field("review"), Field("film")))
    planned = plan_call(spec, [REVIEWS, FILMS], engine=CHARACTERS)
    prompt = prepare(replace(spec, plan=planned))
    segments = lay_out(encode_window(prompt, [pa.array(REVIEWS), pa.array(FILMS)]))[1]
    texts = sorted(prompt.call["instruction"] + "".join(row) for row in segments)
    shared = sum(common_prefix(*pair) for pair in pairwise(texts))
    total = sum(map(len, texts))
    assert planned.estimate["prompt_tokens"] == pytest.approx(total, rel=0.01)
    assert planned.estimate["cached_tokens"] / total == pytest.approx(shared / total, abs=0.02)


def test_long_elements_that_arrays_share_are_foreseen_whole():
    """Questions of which every eighth has two of its four texts in common, in any order, at one token per word."""
    rng = random.Random(0)
    texts = [" ".join(f"w{rng.randrange(5000)}" for _ in range(60)) for _ in range(96)]
    sets = [[*texts[2 * (i % 8) : 2 * (i % 8) + 2], *texts[16 + 2 * i : 18 + 2 * i]] for i in range(40)]
    asked = [(f"q{i} of many", rng.sample(contexts, 4)) for i, contexts in enumerate(sets)]
    numbers = {word: i for i, word in enumerate({word for text in texts for word in text.split()})}
    words = EngineProfile(
        count=lambda them: np.array([len(text.split()) for text in them], float),
        tokenize=lambda them: [np.array([numbers.get(w.strip('",'), -1) for w in text.split()]) for text in them],
    )
    fields = (Field("question"), Field("contexts", "json"))
    spec = CallSpec("llm", "Answer it", fields, {"unordered": ["contexts"]})
    columns = [[question for question, _ in asked], [json.dumps(contexts) for _, contexts in asked]]
    planned = plan_call(spec, columns, engine=words)
    prompt = prepare(replace(spec, plan=planned))
    segments = lay_out(encode_window(prompt, [pa.array(column) for column in columns]))[1]
    prompts = sorted((prompt.call["instruction"] + " " + "".join(row)).split() for row in segments)
    total, shared = sum(map(len, prompts)), sum(common_prefix(*pair) for pair in pairwise(prompts))
    assert shared / total > 0.3
    found = planned.estimate
    assert found["cached_tokens"] / found["prompt_tokens"] == pytest.approx(shared / total, abs=0.03)


def test_a_sample_of_distinct_tuples_is_scaled_to_all():
    """Of 4,000 reviews of 40 films, 1,000 are seen."""
    films = [f"film {i % 40} " + "plot " * 40 for i in range(4000)]
    reviews = [f"review {i}" for i in range(4000)]
    seen = random.Random(1).sample(range(4000), 1000)
    size = InputSize(rows=9000, distinct=4000, columns=(4000, 40))
    sampled = plan([[reviews[i] for i in seen], [films[i] for i in seen]], size).estimate
    whole = plan([reviews, films], size).estimate
    assert (sampled["rows"], sampled["distinct"]) == (9000, 4000)
    for name in ("prompt_tokens", "cached_tokens", "output_tokens"):
        assert sampled[name] == pytest.approx(whole[name], rel=0.03)


def test_repeated_rows_are_asked_once():
    once, thrice = plan([REVIEWS, FILMS]).estimate, plan([REVIEWS * 3, FILMS * 3]).estimate
    assert thrice == once | {"rows": 3 * once["rows"]}


def test_seconds_and_money():
    engine = EngineProfile(prices=Prices(2.0, 0.5, 8.0), speed=Speed(1.0, 0.001, 0.01), output=3.0)
    found = plan([REVIEWS, FILMS], engine=engine).estimate
    computed = found["prompt_tokens"] - found["cached_tokens"]
    assert found["output_tokens"] == 64 * 3
    assert found["cost"] == pytest.approx((2 * computed + 0.5 * found["cached_tokens"] + 8 * 192) / 1e6, rel=0.01)
    assert found["seconds"] == pytest.approx(1 + 0.001 * computed + 0.01 * 192, rel=0.01)
    assert {"seconds", "cost"}.isdisjoint(plan([REVIEWS, FILMS]).estimate)


def answer_length(function, result_type="string", **options):
    """At a token per character."""
    spec = CallSpec(function, "What?", (Field("review"),), options, result_type)
    return plan_call(spec, [REVIEWS], engine=CHARACTERS).estimate["output_tokens"] / 64


def test_before_anything_was_measured_the_constraint_says_how_long_answers_are():
    score = {"name": "score", "type": "integer", "nullable": True, "metadata": {}}
    texts = {"type": "array", "elementType": "string", "containsNull": True}
    number, both = (
        {"type": "struct", "fields": fields} for fields in ([score], [score, score | {"name": "actors", "type": texts}])
    )
    assert answer_length("llm_extract", number) == len('{"score": 42}')
    assert 30 < answer_length("llm_extract", both) < 100
    assert answer_length("llm_extract", both, max_tokens=20) == 20
    assert answer_length("llm", "long") == 2
    assert answer_length("llm", regex="[0-9]{4}") == 8
    assert answer_length("llm_classify", choices=["good", "so-so"]) == 4.5
    assert (answer_length("llm"), answer_length("llm", max_tokens=16)) == (64, 8)
    itself = {"$defs": {"a": {}}, "properties": {"next": {"type": "array", "items": {"$ref": "#"}}, "on": {"enum": []}}}
    assert 20 < answer_length("llm", json_schema=json.dumps(itself)) < 100


@pytest.mark.parametrize(("limit", "calls"), [(None, 64 + 32), (4, 16 + 8), (40, 64 + 32)])
def test_later_predicates_are_asked_about_what_earlier_ones_pass(limit, calls):
    """Half of the rows pass each, by default; a limit stops once enough did."""
    terms = [Term(CallSpec("llm_filter", f"Is it {i}?", (Field("review"),), {}, "boolean"), (0,)) for i in range(2)]
    spec = CallSpec("llm_filter", "", (Field("review"),), {}, "boolean", limit=limit, terms=tuple(terms))
    alone = plan_call(terms[0].call, [REVIEWS], 64).estimate
    found = plan_conjunction(spec, [REVIEWS], 64)
    assert (found.estimate["rows"], found.estimate["distinct"], found.estimate["calls"]) == (64, 64, calls)
    assert found.estimate["prompt_tokens"] == pytest.approx(alone["prompt_tokens"] * calls / 64, rel=0.01)
    assert "50% are expected to pass each predicate" in found.reasons[-1]
    assert ("LIMIT 4 is expected to stop after 25.0% of the rows" in found.reasons[-1]) == (limit == 4)


def test_settings_name_prices_and_blocks():
    conf = {"price.prompt": "2", "price.output": "x", "engine": "endpoint", "engine.args": '{"kv_tokens": 7}'}
    found = engine_profile({f"spark.llm.{key}": value for key, value in conf.items()})
    assert (found.prices, found.block, found.minimum, found.capacity) == (Prices(2, 2, 0), 128, 1024, 7)


def test_rows_are_ordered_only_where_the_cache_could_lose_a_prefix():
    needed = plan([REVIEWS, FILMS]).estimate["tree_tokens"]
    for capacity, ordered in ((needed, 0.0), (needed - 1, 1.0)):
        found = plan([REVIEWS, FILMS], engine=EngineProfile(capacity=int(capacity)))
        assert found.estimate["row_order"] == ordered
        assert any(("rows sorted" in reason) == bool(ordered) for reason in found.reasons if reason.startswith("rows"))


@pytest.mark.parametrize(
    "columns",
    [
        [[None] * 9, [None] * 9],
        [["a" * (1 << 20), "b"], ["c", None]],
        [["a"], ["b"]],
        [["", ""], ["", ""]],
    ],
)
def test_odd_samples_have_an_estimate(columns):
    found = plan(columns)
    assert sorted(found.order) == [0, 1]
    assert 0 <= found.estimate["cached_tokens"] < found.estimate["prompt_tokens"]


def test_a_short_column_of_few_values_does_not_lead():
    """Ratings repeat most, but before the film each film's text would stand in the tree once per rating."""
    ratings = [str(1 + i // 30 % 5) for i in range(500)]
    films = [f"film {i % 30} " + "plot " * 10 for i in range(500)]
    reviews = [f"review {i} " + "word " * 9 for i in range(500)]
    found = plan([reviews, ratings, films], fields=("review", "rating", "film"))
    assert found.order == (2, 1, 0)


@pytest.mark.parametrize("sample", [[], [[], []], [pa.array([], pa.string())] * 2])
def test_an_empty_input_keeps_the_written_order(sample):
    found = plan(sample, InputSize(0, 0, (0, 0)))
    assert (found.order, found.estimate) == ((0, 1), {})
    assert found.reasons == ("fields as written: no sample of the input",)


@pytest.mark.parametrize("sampled", [150, 300, 600, 1200])
def test_distinct_values_are_extrapolated(sampled):
    """Of 1,200 rows: a key, fifty values, and values of which a few are frequent and most rare."""
    rng = np.random.default_rng(5)
    rows = rng.permutation(1200)[:sampled]
    skewed = np.unique(rng.zipf(1.5, 1200), return_inverse=True)[1]
    key, fifty, zipf = (
        estimate_distinct(codes[rows], 1200) for codes in (np.arange(1200), np.arange(1200) % 50, skewed)
    )
    assert key == pytest.approx(1200)
    assert fifty == pytest.approx(50, rel=0.15)
    assert zipf == pytest.approx(skewed.max() + 1, rel=0.35)


def test_an_unordered_field_that_is_no_array_is_refused_or_kept():
    with pytest.raises(InvalidCall, match="names 'film'"):
        plan([REVIEWS, FILMS], unordered=["film"])
    spec = CallSpec("llm", "Sum up", (Field("c", "json"),), {"unordered": ["c"]})
    found = plan_call(spec, [['{"v":{"a":1}}', '{"v":[]}', "{", None, '{"v":["x"]}']])
    assert found.estimate["distinct"] == 5
