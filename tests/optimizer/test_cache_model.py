"""The model of the engine's prefix cache, against a cache that keeps every block by its whole prefix."""

from __future__ import annotations

from collections import OrderedDict
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spark_llm.optimizer.cache_model import Served, simulate_cache

SIZES = {"a": 1, "b": 2, "c": 5, "d": 16, "e": 33, "empty": 0}
prompts_of_pieces = st.lists(st.lists(st.sampled_from(list(SIZES)), max_size=5), max_size=25)


def by_blocks(prompts, capacity, block) -> Served:
    """Every block under its chain of tokens, least recently used first; the last block of a prompt is the oldest."""
    cache: OrderedDict[tuple, None] = OrderedDict()
    total = cached = 0
    for prompt in prompts:
        tokens = tuple(chain.from_iterable([(piece, i) for i in range(SIZES[piece])] for piece in prompt))
        blocks = [tokens[:end] for end in range(block, len(tokens) + 1, block)]
        found = next((i for i, held in enumerate(blocks) if held not in cache), len(blocks))
        total, cached = total + len(tokens), cached + min(found, max(len(tokens) - 1, 0) // block) * block
        for held in reversed(blocks):
            cache[held] = None
            cache.move_to_end(held)
        while capacity is not None and len(cache) > capacity // block:
            cache.popitem(last=False)
    return Served(total, cached)


@given(prompts_of_pieces, st.none() | st.integers(0, 120), st.sampled_from([1, 3, 16]))
def test_model_serves_what_a_cache_of_blocks_serves(prompts, capacity, block):
    assert simulate_cache(prompts, SIZES.__getitem__, capacity, block) == by_blocks(prompts, capacity, block)


def test_order_counts_where_the_prefixes_exceed_the_capacity():
    films = [("system", film, f"review {film}{i}") for i in range(9) for film in "ABCD"]
    size = lambda piece: 10 if piece.startswith("review") else 100  # noqa: E731
    alternating, grouped = simulate_cache(films, size, 300), simulate_cache(sorted(films), size, 300)
    assert alternating.cached == 35 * 100
    assert grouped.cached == 35 * 100 + 32 * 100
    assert simulate_cache(films, size) == simulate_cache(sorted(films), size) == grouped


def test_no_prompts_and_no_room():
    assert simulate_cache([], len).rate == 0.0
    assert simulate_cache(["aa", "aa"], len, capacity=0) == Served(4, 0)
    with pytest.raises(ValueError, match="got 0 and None"):
        simulate_cache([], len, block=0)
