"""What the planner expects of a call beside what the native engine counts: one JSON line per file.

    python benchmarks/estimate.py FILE… [--rows 1000] [--sample 2000] [--seeds 1 2 3] [--trie] --json

The first distinct rows of FILE (Parquet or CSV; 0 = all) are asked of the embedded model, in windows as a task plans
them; the estimate is made from a random sample of them. `prompt_tokens` and `hit_rate` (cached of prompt tokens) have
what was expected and the engine's own counters; `prompt_error` is relative, `hit_rate_error` in points. With `--trie`
nothing is asked: the whole prompts are tokenized and counted as an unbounded cache would serve them, which takes
seconds for whole tables. Lines are appended to benchmarks/results/estimate.jsonl.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from emit import emit
from planner import read
from sampled_plan import distinct_rows, in_windows, planned_filter
from spark_llm.optimizer.prompts import Prompt, prepare
from spark_llm.serving.core import Call, ModelRef, Request
from spark_llm.serving.engines import create_engine
from spark_llm.serving.models.directory import find_model
from spark_llm.serving.prompt import PromptComposer
from spark_llm.serving.tokenizer import Tokenizer

RESULTS = Path(__file__).resolve().parent / "results" / "estimate.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--rows", type=int, default=1000, help="distinct rows to ask; 0 = all")
    parser.add_argument("--sample", type=int, default=2000, help="rows that the planner sees")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="of the sample, where it is not all rows")
    parser.add_argument("--drop", action="append", default=[], metavar="COLUMN", help="leave this column out")
    parser.add_argument("--trie", action="store_true", help="count tokens without asking")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    for file in arguments.files:
        table = distinct_rows(read(file, arguments.drop, None))
        table = table.slice(0, arguments.rows or table.num_rows)
        for seed in arguments.seeds[:1] if table.num_rows <= arguments.sample else arguments.seeds:
            emit(measure(file, table, seed, arguments), arguments.results, as_json=arguments.json)


def measure(file: str, table: pa.Table, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    begin = time.process_time()
    spec = planned_filter(table, arguments.sample, seed=seed)
    seconds = time.process_time() - begin
    assert spec.plan is not None
    order = [(table.column_names[i], "ascending") for i in spec.plan.order]
    prompt = prepare(spec)
    segments = in_windows(prompt, table.sort_by(order))
    total, cached = (in_trie if arguments.trie else by_engine)(prompt, segments)
    expected = spec.plan.estimate
    rates = expected["cached_tokens"] / expected["prompt_tokens"], cached / total
    return {
        "table": Path(file).stem,
        "rows": table.num_rows,
        "sample": min(arguments.sample, table.num_rows),
        "seed": seed,
        "measured_by": "trie" if arguments.trie else "native engine",
        "prompt_tokens": {"expected": expected["prompt_tokens"], "measured": total},
        "hit_rate": {"expected": round(rates[0], 4), "measured": round(rates[1], 4)},
        "prompt_error": round(expected["prompt_tokens"] / total - 1, 4),
        "hit_rate_error": round(100 * (rates[0] - rates[1]), 2),
        "plan_cpu_s": round(seconds, 3),
    }


def by_engine(prompt: Prompt, segments: Sequence[tuple[str, ...]]) -> tuple[int, int]:
    """Prompt tokens and those from the cache, as the engine counts them."""
    engine, call = create_engine(ModelRef()), Call.from_dict(dict(prompt.call))
    engine.submit([Request(number, call, pieces) for number, pieces in enumerate(segments)])
    total = cached = 0
    while engine.has_work():
        for finished in engine.step():
            assert finished.error is None, finished.error
            total, cached = total + finished.usage.prompt, cached + finished.usage.cached
    engine.close()
    return total, cached


def in_trie(prompt: Prompt, segments: Sequence[tuple[str, ...]]) -> tuple[int, int]:
    """Prompt tokens, and those that sorted neighbours share."""
    directory, call = find_model("default"), Call.from_dict(dict(prompt.call))
    composer = PromptComposer(directory, Tokenizer(directory))
    prompts = sorted((composer.compose(Request(0, call, s)).astype(">u4") for s in segments), key=np.ndarray.tobytes)
    return sum(map(len, prompts)), sum(shared(a, b) for a, b in pairwise(prompts))


def shared(left: np.ndarray, right: np.ndarray) -> int:
    length = min(len(left), len(right))
    differs = left[:length] != right[:length]
    return int(differs.argmax()) if differs.any() else length


if __name__ == "__main__":
    main()
