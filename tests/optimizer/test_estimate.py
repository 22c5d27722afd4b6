"""The estimate of a call, where the engine's cache is bounded."""

from __future__ import annotations

import json

import pytest
from spark_llm.optimizer.core import CallSpec, Field
from spark_llm.optimizer.plan import plan_call

FILMS = [f"film {i % 4} " + "plot " * 40 for i in range(64)]
REVIEWS = [f"review {i}" for i in range(64)]


def estimate(**conf: str):
    settings = {f"spark.llm.{key.replace('_', '.')}": value for key, value in conf.items()}
    spec = CallSpec("llm_filter", "Is it good?", (Field("review"), Field("film")), conf=settings)
    return plan_call(spec, [REVIEWS, FILMS], rows=64).estimate


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
