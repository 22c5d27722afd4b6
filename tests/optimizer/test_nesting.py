"""Nesting of rows from the bottom up."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise, takewhile

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from spark_llm.optimizer import element_order, window
from spark_llm.optimizer.columns import encode, encode_unordered
from spark_llm.optimizer.nesting import nest
from spark_llm.optimizer.window import plan_window

item_sets = st.lists(st.sets(st.integers(0, 9), min_size=1, max_size=4), min_size=1, max_size=12)


def padded(sets) -> np.ndarray:
    width = max(map(len, sets))
    return np.array([sorted(items) + [-1] * (width - len(items)) for items in sets])


def leading(items, common) -> list[list[int]]:
    """Each row's shared items, those of the largest groups first."""
    pairs = [
        sorted((-r, i) for r, i in zip(rs, row, strict=True) if r)
        for rs, row in zip(common.tolist(), items.tolist(), strict=True)
    ]
    return [[item for _, item in row] for row in pairs]


def saved(rows, lengths) -> int:
    """What sorted rows share with the one before."""
    equal = (takewhile(lambda pair: pair[0] == pair[1], zip(*two, strict=False)) for two in pairwise(sorted(rows)))
    return sum(lengths[item] for pairs in equal for item, _ in pairs)


def best_join(sets, lengths) -> int:
    """What the best single join saves."""
    shares = [sum(lengths[i] for i in a & b) for n, a in enumerate(sets) for b in sets[:n]]
    return max(shares, default=0)


@given(item_sets, st.lists(st.integers(1, 40), min_size=10, max_size=10))
def test_rows_begin_with_what_they_share(sets, lengths):
    items = padded(sets)
    common = nest(items, np.array(lengths))
    assert common.shape == items.shape
    rows = leading(items, common)
    assert all(set(row) <= own for row, own in zip(rows, sets, strict=True))
    assert saved(rows, lengths) >= best_join(sets, lengths)


def test_two_pairs_and_what_both_have_in_common():
    """The pairs {0, 1, 2} and {0, 3, 4} are joined first, then both by 0, which so leads everywhere."""
    items = np.array([[0, 1, 2], [0, 1, 2], [0, 3, 4], [0, 3, 4], [5, 6, 7]])
    assert nest(items, np.full(8, 10)).tolist() == [[2, 1, 1]] * 4 + [[0, 0, 0]]


def test_rows_that_share_alike_are_joined_in_few_rounds(monkeypatch):
    """Every row is as near to every other: ties are spread, or each round would find one pair."""
    common = nest(np.zeros((200, 1), int), np.full(1, 10))
    assert set(common.ravel().tolist()) == {common.max()}
    assert common.max() < 40
    monkeypatch.setattr("spark_llm.optimizer.nesting.ROUNDS", 1)
    assert set(nest(np.zeros((200, 1), int), np.full(1, 10)).ravel().tolist()) == {0, 1}


def test_an_item_of_many_rows_comes_along(monkeypatch):
    monkeypatch.setattr("spark_llm.optimizer.nesting.COMMON", 2)
    items = np.array([[0, 1], [0, 1], [0, 2], [0, 3]])
    assert nest(items, np.full(4, 10)).tolist() == [[1, 1], [1, 1], [0, 0], [0, 0]]


def retrieved(rows: int, contexts: int) -> list[list[str]]:
    """Passages as a retriever gives them: the neighbours of a point, nearest first."""
    random = np.random.default_rng(3)
    passages = random.random((rows // 5, 2))
    distance = ((random.random((rows, 1, 2)) - passages) ** 2).sum(axis=2)
    return [[f"passage {i} " + "text " * 20 for i in row] for row in distance.argsort(axis=1)[:, :contexts].tolist()]


def hit_rate(columns) -> float:
    layout = plan_window(columns, range(len(columns)))
    return layout.hits / sum(int(column.lengths[column.codes].sum()) for column in columns)


def test_nesting_shares_more_of_retrieved_contexts(monkeypatch):
    rows = retrieved(300, 4)
    columns = [encode(pa.array(c), f"{i}: ", str) for i, c in enumerate(zip(*rows, strict=True))]
    arrays = pa.array([json.dumps(row) for row in rows])
    ordered, unordered = hit_rate(columns), hit_rate([encode_unordered(arrays, "contexts: ")])
    monkeypatch.setattr(window, "NESTED_ROWS", 0)
    monkeypatch.setattr(element_order, "ARRAYS", 0)
    assert ordered > hit_rate(columns)
    assert unordered > hit_rate([encode_unordered(arrays, "contexts: ")]) + 0.01


def test_values_that_no_row_has_change_no_plan():
    """A part of an encoded window keeps the values of all its rows."""
    random = np.random.default_rng(5)
    rows = [[f"passage {number} of some length" for number in random.integers(0, 60, 3)] for _ in range(400)]
    whole = [encode(pa.array(values), f"{i}: ", str) for i, values in enumerate(zip(*rows, strict=True))]
    alone = [encode(pa.array(values), f"{i}: ", str) for i, values in enumerate(zip(*rows[:80], strict=True))]
    part = [replace(column, codes=column.codes[:80]) for column in whole]
    assert plan_window(part, range(3)).hits == plan_window(alone, range(3)).hits
