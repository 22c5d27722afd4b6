"""How much text the plan of a table shares, and what planning costs: one JSON line per file.

    python benchmarks/planner.py FILE… [--unordered PREFIX] [--drop COLUMN]… [--dump OUT.parquet] --json
    python benchmarks/planner.py synthetic:100000 --json

FILE is Parquet or CSV, `synthetic:ROWS` for five made-up columns, `short:ROWS` for five of short cells, `keys:ROWS` for
five of unique keys, or `nulls:ROWS` for five of NULLs.
`hit_rate` is the share of characters, cells written as "col: value, ", that an unbounded prefix cache serves, counted
on the rows as they are dumped. `plan_cpu_s` is encoding and planning, without reading and rendering; `peak_mib` is the
table and what planning takes on top. `lru` asks the real prompts of at most 100,000 rows through a cache of 43k tokens
in blocks of 16: planned, in natural and in shuffled order. Lines are appended to benchmarks/results/planner.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import time
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from emit import emit
from resident import peak_above, resident_mib, settle
from spark_llm.optimizer.arrangement import Blocks
from spark_llm.optimizer.cache_model import simulate_cache
from spark_llm.optimizer.cells import cells
from spark_llm.optimizer.columns import Column, Strings, encode, encode_unordered, encode_window
from spark_llm.optimizer.core import CallSpec, Field
from spark_llm.optimizer.layout import lay_out
from spark_llm.optimizer.prompts import prepare
from spark_llm.optimizer.window import Layout, plan_window
from tables import nulls, short_cells, synthetic_reviews, unique_keys

RESULTS = Path(__file__).resolve().parent / "results" / "planner.jsonl"
CHARACTERS_PER_TOKEN = 4
CACHE_TOKENS, BLOCK_TOKENS, CACHE_ROWS = 43_000, 16, 100_000

Row = tuple[list[str], list[str]]
"""Field names and values of a row, both in the planned order."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--unordered", metavar="PREFIX", help="columns whose names begin so are one unordered array")
    parser.add_argument("--drop", action="append", default=[], metavar="COLUMN", help="leave this column out")
    parser.add_argument("--dump", type=Path, help="write the planned rows of the (last) file")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the lines are appended")
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")
    arguments = parser.parse_args()
    for file in arguments.files:
        emit(measure(file, arguments), arguments.results, as_json=arguments.json)


def measure(file: str, arguments: argparse.Namespace) -> dict[str, Any]:
    table = read(file, arguments.drop, arguments.unordered)
    table_mib = table.nbytes / 2**20
    inputs = {name: as_json(table[name]) if is_list(table, name) else table[name] for name in table.column_names}
    settle()
    with peak_above(resident_mib()) as memory:
        begin = time.process_time()
        columns = [encoded(name, values, is_list(table, name)) for name, values in inputs.items()]
        layout = plan_window(columns, range(len(columns)))
        seconds = time.process_time() - begin
    rows = list(planned_rows(table, columns, layout))
    if arguments.dump:
        dump(arguments.dump, layout, rows)
    return {
        "table": Path(file).stem,
        "rows": table.num_rows,
        "columns": len(columns),
        "unordered": arguments.unordered,
        "hit_rate": round(hit_rate(rows), 4),
        "plan_cpu_s": round(seconds, 3),
        "peak_mib": round(table_mib + memory.mib, 1),
        "table_mib": round(table_mib, 1),
        "lru": cache_rates(table.slice(0, CACHE_ROWS)),
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "pyarrow": pa.__version__},
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
    }


def read(file: str, drop: Sequence[str], unordered: str | None) -> pa.Table:
    """The table, all columns as text; columns that begin with `unordered` as one column of lists."""
    made = {"synthetic": synthetic_reviews, "short": short_cells, "keys": unique_keys, "nulls": nulls}
    kind, _, rows = file.partition(":")
    if kind in made:
        table = made[kind](int(rows))
    else:
        table = pa.csv.read_csv(file) if file.endswith(".csv") else pq.read_table(file)
    table = table.drop_columns([name for name in drop if name in table.column_names])
    elements = [name for name in table.column_names if unordered and name.startswith(unordered)]
    texts = {name: as_text(table[name]) for name in table.column_names if name not in elements}
    if elements:
        lists = zip(*(table[name].to_pylist() for name in elements), strict=True)
        texts[unordered or ""] = pa.chunked_array([pa.array([flat(row) for row in lists], pa.list_(pa.string()))])
    return pa.table(texts)


def as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_nested(column.type):
        return pa.chunked_array([pa.array([json.dumps(value, default=str) for value in column.to_pylist()])])
    return column.cast(pa.string())


def flat(row: Sequence[Any]) -> list[str]:
    """The elements of one row's array, from columns that hold one or a list of them."""
    parts = (value if isinstance(value, list) else [value] for value in row)
    return [str(element) for element in chain.from_iterable(parts) if element is not None]


def is_list(table: pa.Table, name: str) -> bool:
    return pa.types.is_list(table[name].type)


def encoded(name: str, values: Strings, unordered: bool) -> Column:
    return encode_unordered(values, f"{name}: ") if unordered else encode(values, f"{name}: ", lambda text: text or "")


def as_json(lists: pa.ChunkedArray) -> pa.Array:
    return pa.array([json.dumps(elements, ensure_ascii=False) for elements in lists.to_pylist()], pa.large_string())


def planned_rows(table: pa.Table, columns: Sequence[Column], layout: Layout) -> Iterator[Row]:
    """The rows as laid out; an array gives one field per element, all of one name."""
    names = table.column_names
    values = [
        elements(column) if is_list(table, name) else [value or "" for value in table[name].to_pylist()]
        for name, column in zip(names, columns, strict=True)
    ]
    for row, order in zip(layout.rows.tolist(), layout.order.tolist(), strict=True):
        cells_of_row = [(names[c], values[c][row]) for c in order]
        pairs = [(name, v) for name, value in cells_of_row for v in (value if isinstance(value, list) else [value])]
        yield [name for name, _ in pairs], [value for _, value in pairs]


def elements(column: Column) -> list[list[str]]:
    """Each row's elements in the order in which the planner put them."""
    distinct = [json.loads("".join(cell)[column.label :]) for cell in column.pieces]
    return [distinct[code] for code in column.codes.tolist()]


def dump(path: Path, layout: Layout, rows: Sequence[Row]) -> None:
    names, values = zip(*rows, strict=True) if rows else ((), ())
    texts = pa.list_(pa.string())
    columns = {"row": pa.array(layout.rows), "fields": pa.array(names, texts), "values": pa.array(values, texts)}
    pq.write_table(pa.table(columns), path)


def hit_rate(rows: Sequence[Row]) -> float:
    """Of all characters, those that a trie of the rows holds already: what sorted neighbours share."""
    texts = sorted("".join(f"{n}: {v}, " for n, v in zip(*row, strict=True)) for row in rows)
    hits = sum(map(shared, texts, texts[1:]))
    return hits / max(sum(map(len, texts)), 1)


def shared(left: str, right: str) -> int:
    """Length of the common beginning, by bisection."""
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if left[low:middle] == right[low:middle] else (low, middle - 1)
    return low


def cache_rates(table: pa.Table) -> dict[str, float]:
    """Hit rates of the real prompts under the bounded cache, by order of asking."""
    lists = [name for name in table.column_names if is_list(table, name)]
    fields = tuple(Field(name, "json" if name in lists else "text") for name in table.column_names)
    options = {"unordered": lists} if lists else {}
    prompt = prepare(CallSpec("llm", "Answer the question about the record.", fields, options))
    window = encode_window(prompt, [as_json(table[n]) if n in lists else table[n] for n in table.column_names])
    natural = cells(window)
    capacity, block = (CHARACTERS_PER_TOKEN * tokens for tokens in (CACHE_TOKENS, BLOCK_TOKENS))
    constant = prompt.call["instruction"]
    orders = {
        "planned": lay_out(window, blocks=Blocks(block, len(constant)))[1],
        "natural": natural,
        "shuffled": random.Random(1).sample(natural, len(natural)),
    }
    return {
        name: round(simulate_cache(((constant, *row) for row in rows), len, capacity, block).rate, 4)
        for name, rows in orders.items()
    }


if __name__ == "__main__":
    main()
