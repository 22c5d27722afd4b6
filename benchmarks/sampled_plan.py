"""A table's call, planned from a sample and laid out in windows, as the plan and the tasks of a query do."""

from __future__ import annotations

import random
from dataclasses import replace

import pyarrow as pa
from spark_llm.optimizer.columns import encode_window
from spark_llm.optimizer.core import CallSpec, Field
from spark_llm.optimizer.layout import lay_out
from spark_llm.optimizer.plan import InputSize, plan_call
from spark_llm.optimizer.prompts import Prompt

from spark_llm.planning import profile

WINDOW = 8192

Segments = list[tuple[str, ...]]


def distinct_rows(table: pa.Table) -> pa.Table:
    return table.group_by(table.column_names, use_threads=False).aggregate([]).select(table.column_names)


def planned_filter(table: pa.Table, sample: int, tasks: int = 1, hosts: int = 1, seed: int = 1) -> CallSpec:
    """`llm_filter` over distinct rows, with the plan that a random sample of them gives."""
    rows = random.Random(seed).sample(range(table.num_rows), min(sample, table.num_rows))
    columns = [column.to_pylist() for column in table.take(pa.array(rows)).columns]
    distinct = tuple(float(len(column.unique())) for column in table.columns)
    spec = CallSpec("llm_filter", "Is it suitable for kids?", tuple(map(Field, table.column_names)), {}, "boolean")
    size = InputSize(table.num_rows, float(table.num_rows), distinct, tasks, hosts)
    return replace(spec, plan=plan_call(spec, columns, size, engine=profile(spec)))


def in_windows(prompt: Prompt, table: pa.Table) -> Segments:
    """The table's rows as a task asks them."""
    asked: Segments = []
    for start in range(0, table.num_rows, WINDOW):
        rows = table.slice(start, WINDOW)
        asked += lay_out(encode_window(prompt, [rows[f.name].combine_chunks() for f in prompt.spec.fields]))[1]
    return asked
