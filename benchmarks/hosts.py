"""What spreading a call over several engine hosts costs in prefix hits, and how even their loads are: a line per file.

    python benchmarks/hosts.py FILE… [--hosts 4] [--tasks 4] --json

The rows of FILE (Parquet or CSV) are partitioned as Spark would: by ranges of the leading fields that the plan names,
borders from 100 sampled rows per partition. Each partition is planned in windows of 8,192 rows and goes to the host
that is free first. Every host has a cache of 131,072 tokens. `hit_rate` is the share of prompt tokens (4 characters
each) that the caches serve on one host and on all, `kept` their ratio, `heaviest` the computed tokens of the busiest
host over the mean; `scattered` is the hit rate with partitions of random rows. Lines are appended to
benchmarks/results/hosts.jsonl.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from emit import emit
from planner import read
from sampled_plan import Segments, distinct_rows, in_windows, planned_filter
from spark_llm.optimizer.cache_model import Served, simulate_cache
from spark_llm.optimizer.groups import dense
from spark_llm.optimizer.prompts import Prompt, prepare

RESULTS = Path(__file__).resolve().parent / "results" / "hosts.jsonl"
CAPACITY, SAMPLE, BORDER_SAMPLES = 4 * 131_072, 2000, 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--hosts", type=int, default=4)
    parser.add_argument("--tasks", type=int, default=4, help="tasks per host")
    parser.add_argument("--drop", action="append", default=[], metavar="COLUMN", help="leave this column out")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    for file in arguments.files:
        emit(measure(file, arguments), arguments.results, as_json=arguments.json)


def measure(file: str, arguments: argparse.Namespace) -> dict[str, Any]:
    table = distinct_rows(read(file, arguments.drop, None))
    hosts, tasks = arguments.hosts, arguments.hosts * arguments.tasks
    spec = planned_filter(table, SAMPLE, tasks, hosts)
    order = [table.column_names[i] for i in spec.plan.order] if spec.plan else []
    fields = order[: int(spec.plan.estimate["partition_fields"])] if spec.plan else []
    prompt = prepare(spec)
    parts = [in_windows(prompt, part) for part in ranges(table, order, fields, tasks)]
    scattered = [in_windows(prompt, part) for part in ranges(shuffled(table), [], [], tasks)]
    one, (spread, heaviest) = asked(prompt, [parts])[0], hosts_of(prompt, parts, hosts)
    return {
        "table": Path(file).stem,
        "rows": table.num_rows,
        "hosts": hosts,
        "tasks": tasks,
        "partitioned_by": fields,
        "hit_rate": {"one": round(one.rate, 4), "all": round(spread.rate, 4)},
        "kept": round(spread.rate / one.rate, 4) if one.rate else 1.0,
        "heaviest": round(heaviest, 3),
        "scattered": round(hosts_of(prompt, scattered, hosts)[0].rate, 4),
    }


def shuffled(table: pa.Table) -> pa.Table:
    return table.take(pa.array(random.Random(2).sample(range(table.num_rows), table.num_rows)))


def ranges(table: pa.Table, order: Sequence[str], fields: Sequence[str], tasks: int) -> list[pa.Table]:
    """Range partitions by `fields`, each sorted by `order`; equal runs of rows without fields."""
    if not fields:
        return [table.slice(start, len(part)) for part, start in even(table.num_rows, tasks)]
    table = table.sort_by([(name, "ascending") for name in order])
    codes = [table[name].dictionary_encode().combine_chunks() for name in fields]
    group = dense(np.stack([c.indices.fill_null(-1).to_numpy() + 1 for c in codes], axis=1).astype(np.int32))
    group = np.cumsum(np.diff(group, prepend=group[:1]) != 0)
    sample = np.sort(np.random.default_rng(1).choice(group, min(BORDER_SAMPLES * tasks, len(group)), replace=False))
    borders = sample[[len(sample) * i // tasks for i in range(1, tasks)]]
    part = np.searchsorted(borders, group, side="left")
    return [table.slice(*extent) for i in range(tasks) if (extent := run(part, i))[1]]


def even(rows: int, tasks: int) -> list[tuple[range, int]]:
    starts = [rows * i // tasks for i in range(tasks + 1)]
    return [(range(a, b), a) for a, b in pairwise(starts)]


def run(part: np.ndarray, number: int) -> tuple[int, int]:
    """Where the rows of a partition begin, and how many there are."""
    start, end = np.searchsorted(part, [number, number + 1])
    return int(start), int(end - start)


def hosts_of(prompt: Prompt, parts: Sequence[Segments], hosts: int) -> tuple[Served, float]:
    """What all hosts serve if each partition goes to the host that has least to do; and the heaviest over the mean."""
    shares: list[list[Segments]] = [[] for _ in range(hosts)]
    load = [0] * hosts
    for part in parts:
        free = load.index(min(load))
        shares[free].append(part)
        served = asked(prompt, [[part]])[0]
        load[free] += served.prompt - served.cached
    found = asked(prompt, shares)
    computed = [served.prompt - served.cached for served in found]
    total = Served(sum(s.prompt for s in found), sum(s.cached for s in found))
    return total, max(computed) * hosts / max(sum(computed), 1)


def asked(prompt: Prompt, shares: Sequence[Sequence[Segments]]) -> list[Served]:
    """What the cache of each host serves of its partitions."""
    constant = prompt.call["instruction"]
    return [simulate_cache(((constant, *row) for part in share for row in part), len, CAPACITY) for share in shares]


if __name__ == "__main__":
    main()
