"""Soft functional dependencies, the field orders made of them, and partitions by prefix groups."""

from __future__ import annotations

import random

import numpy as np
import pytest
from spark_llm.optimizer.field_order import choose_field_order, group_field_order
from spark_llm.optimizer.groups import paired
from spark_llm.optimizer.partitions import partition_fields
from spark_llm.optimizer.prefix_tree import prefix_counts, tree_size
from spark_llm.optimizer.soft_dependencies import soft_dependencies
from spark_llm.optimizer.statistics import column_statistics

from tests.optimizer.strategies import encoded

FILMS = [i % 30 for i in range(600)]
TABLE = [
    [f"review {i} " + "word " * 9 for i in range(600)],
    [f"synopsis {film} " + "plot " * 40 for film in FILMS],
    [f"director {film % 20} " + "name " * 4 for film in FILMS],
    [f"studio {film % 5}" for film in FILMS],
]


def test_dependencies_follow_from_the_rows():
    assert soft_dependencies(encoded(TABLE)) == [[], [2, 3], [3], []]


def test_a_few_exceptions_are_allowed():
    studios = [f"studio {film % 5}" for film in FILMS]
    for i in random.Random(1).sample(range(600), 12):
        studios[i] = "unknown"
    table = encoded([*TABLE[:3], studios])
    assert soft_dependencies(table)[1] == [2, 3]
    assert soft_dependencies(table, strength=1.0)[1] == [2]


@pytest.mark.parametrize("column", [["a"], ["a"] * 9, [None] * 40, [str(i) for i in range(40)]])
def test_too_little_evidence_determines_nothing_but_constants(column):
    other = [str(i) for i in range(len(column))]
    assert soft_dependencies(encoded([column, other]))[0] == []


def test_determined_columns_lead_and_share_more():
    columns = encoded(TABLE)
    statistics = column_statistics(columns, 600)
    alone, grouped = choose_field_order(statistics), group_field_order(statistics, soft_dependencies(columns))
    assert grouped == [3, 2, 1, 0]
    size = {
        tuple(o): tree_size([columns[c] for c in o], prefix_counts([columns[c] for c in o], 600))
        for o in (alone, grouped)
    }
    assert size[tuple(grouped)] < size[tuple(alone)]


def test_counted_values_bound_every_level():
    columns = encoded(TABLE)[:0:-1]  # studio, director, synopsis
    assert prefix_counts(columns, 600).tolist() == [5, 20, 30]
    assert prefix_counts(columns, 1e6, [50, 200, 300]).tolist() == [50, 200, 300]


@pytest.mark.parametrize(("tasks", "fields"), [(1, 2), (4, 3), (6, 4)])
def test_groups_are_whole_unless_a_task_would_be_late(tasks, fields):
    columns = encoded([TABLE[3], TABLE[2], TABLE[1], TABLE[0]])
    assert partition_fields(columns, tasks) == fields


def test_pairs_of_narrow_codes_do_not_overflow():
    narrow = np.arange(100, dtype=np.int8)
    for distinct in (100, 1000):
        assert len(set(paired(narrow[:, None], narrow[None, :], distinct).ravel().tolist())) == 100 * 100
