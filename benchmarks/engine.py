"""The native engine beside vLLM (CPU): the same checkpoint, token ids, threads and KV memory, in alternation.

    python benchmarks/engine.py --workload filter --rows 500 --vs vllm --json

Makes a seeded random-weight Llama of 56 million parameters and a tokenizer trained on the table; several workloads are
answered one after the other, each in pairs that ask another question, so that no prefix is cached. Within a pair both
engines answer the same prompts, and a workload's line is that of the pair with the median ratio. Where one token
decides an answer, vLLM is asked for that token alone, without a grammar. `mfu`: the time of the prompt's matrix
products at the rate of `torch.mm(out=)`, over the whole time; `linears_mfu`: the same over the time that the engine's
own products take, all layers in turn at 2,048 rows.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from checkpoint import write_checkpoint
from emit import emit
from spark_llm.optimizer.columns import encode_window
from spark_llm.optimizer.core import CallSpec, Field
from spark_llm.optimizer.layout import lay_out
from spark_llm.optimizer.plan import plan_call
from spark_llm.optimizer.prompts import prepare
from spark_llm.serving.core import Call, Constraint, ModelRef
from spark_llm.serving.models.config import read_config
from spark_llm.serving.models.directory import find_model, read_json
from spark_llm.serving.worker.package import link_package
from tables import movies

from spark_llm.executor.distinct import distinct_tuples

HERE = Path(__file__).resolve().parent
KV_TOKENS = 1 << 17
SCHEMA = {
    "type": "object",
    "properties": {
        "sentiment": {"enum": ["positive", "negative", "mixed"]},
        "audience_score": {"enum": [1, 2, 3, 4, 5]},
        "suitable_for_kids": {"type": "boolean"},
        "main_genre": {"enum": ["comedy", "drama", "action", "documentary", "horror"]},
    },
    "required": ["sentiment", "audience_score", "suitable_for_kids", "main_genre"],
    "additionalProperties": False,
}
WORKLOADS = {
    "filter": Call("f", constraint=Constraint("choices", ["true", "false"]), max_tokens=8),
    "classify": Call("c", constraint=Constraint("choices", ["positive", "negative", "mixed"]), max_tokens=8),
    "extract": Call("e", constraint=Constraint("json_schema", json.dumps(SCHEMA)), max_tokens=96),
    "summarize": Call("s", max_tokens=32),
}
ONE_TOKEN = ("filter", "classify")
ROWS = 500
"""A fifth of them where more than one token decides: vLLM takes minutes."""
QUESTIONS = (
    "Is the movie suitable for kids?",
    "Would a critic recommend it?",
    "Did the audience like what they saw?",
    "What is the tone of the review?",
    "How does the plot hold together?",
    "Describe the acting.",
    "Judge the direction.",
    "Compare it with its genre.",
)
"""One per pair in turn, behind the workload's name."""


def main() -> None:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as name:
        for lines in measure(arguments, Path(name)):
            by_ratio = sorted(lines, key=lambda line: line.get("ratio") or line["native_rows_per_s"])
            median = by_ratio[len(lines) // 2]
            if arguments.vs:  # all pairs, in the order in which they ran
                median |= {name + "s": [line[name] for line in lines] for name in ("ratio", "cpu_ratio")}
            emit(median, HERE / "results" / "engine.jsonl", as_json=arguments.json)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=list(WORKLOADS), nargs="+", default=["filter"])
    parser.add_argument("--rows", type=int, help="500 where one token decides an answer, else 100")
    parser.add_argument("--sample", action="store_true", help="draw the rows from the whole table, not its beginning")
    parser.add_argument("--vs", choices=["vllm"], help="the other engine; without it the native one runs alone")
    parser.add_argument("--model", help="a model directory or 'default' instead of the benchmark's own checkpoint")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--args", type=json.loads, default={}, help="settings of the native engine, as JSON")
    parser.add_argument("--vllm-args", type=json.loads, default={}, help="settings of vLLM, as JSON")
    parser.add_argument("--vllm-python", default=str(HERE.parent / ".venvs" / "vllm" / "bin" / "python"))
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")
    return parser.parse_args()


def measure(arguments: argparse.Namespace, folder: Path) -> Iterator[list[dict[str, Any]]]:
    """One line a pair, for each workload in turn, by the same two engines."""
    source, table = read_table(arguments.rows or ROWS, sample=arguments.sample)
    texts = (value for column in table.columns for value in column.to_pylist() if value)
    model = arguments.model or str(write_checkpoint(folder / "model", texts))
    threads, shapes = os.cpu_count() or 1, weight_shapes(model)
    settings = {"dtype": "bfloat16", "kv_tokens": KV_TOKENS, "threads": threads, **arguments.args}
    native = Child(ModelRef(model, "native", "", settings), sys.executable, folder)
    other = Child(vllm_reference(arguments, model), arguments.vllm_python, folder) if arguments.vs else None
    try:
        for workload in arguments.workload:
            rows = table if arguments.rows or workload in ONE_TOKEN else table.slice(0, len(table) // 5)
            about = {"workload": workload, "table": source, "sample": arguments.sample, "threads": threads}
            about |= {"native_load_s": native.load_s}
            pairs = range(arguments.pairs)
            yield [about | measure_pair(workload, pair, rows, native, other, folder, shapes) for pair in pairs]
    finally:
        for child in filter(None, (native, other)):
            child.close()


def measure_pair(
    workload: str,
    pair: int,
    table: pa.Table,
    native: Child,
    other: Child | None,
    folder: Path,
    shapes: list[list[int]],
) -> dict[str, Any]:
    path, question = folder / "requests.json", f"To {workload}: {QUESTIONS[pair % len(QUESTIONS)]}"
    instruction, requests = prompts(workload, question, table)
    path.write_text(json.dumps(requests))
    call = replace(WORKLOADS[workload], instruction=instruction)
    ours = native.run({"call": call.to_dict(), "requests": str(path)})
    theirs = None
    if other is not None:
        asked = replace(call, constraint=Constraint(), max_tokens=1) if workload in ONE_TOKEN else call
        theirs = other.run({"call": asked.to_dict(), "requests": str(path)})
    rates = native.run({"peak": {"shapes": shapes, "rows": 2048, "repeats": 5}})
    return {"rows": len(requests), **line(ours, theirs, len(requests), rates, workload in ONE_TOKEN)}


def line(
    ours: dict[str, Any], theirs: dict[str, Any] | None, rows: int, rates: dict[str, float], one_token: bool
) -> dict[str, Any]:
    compared: dict[str, Any] = dict.fromkeys(("vllm_rows_per_s", "ratio", "vllm_steps"))
    if theirs is not None:
        pairs = zip(ours["answers"], theirs["answers"], strict=True)
        same = statistics.mean(parsed(a) == parsed(b) for a, b in pairs)
        compared = {
            "vllm_rows_per_s": round(rows / theirs["seconds"], 1),
            "ratio": round(theirs["seconds"] / ours["seconds"], 3),
            "cpu_ratio": round(theirs["cpu_seconds"] / ours["cpu_seconds"], 3),
            "vllm_steps": theirs["steps"],
            "vllm_computed_prefill_tokens": theirs["prompt_tokens"] - theirs["cached_tokens"],
            **({} if one_token else {"equal_answers": round(same, 3)}),
        }
    return {
        "native_rows_per_s": round(rows / ours["seconds"], 1),
        "native_s": round(ours["seconds"], 3),
        "native_cpu_s": round(ours["cpu_seconds"], 3),
        **compared,
        "native_steps": ours["steps"],
        "errors": ours["errors"],
        "prompt_tokens": ours["prompt_tokens"],
        "output_tokens": ours["output_tokens"],
        "segment_tokens_of_canonical": round(ours["prompt_tokens"] / ours["canonical_tokens"], 4),
        "computed_prefill_tokens": ours["prefill_tokens"],
        "distinct_prefix_tokens": ours["distinct_prefix_tokens"],
        "mfu": round(rates["ideal"] * ours["prefill_tokens"] / ours["seconds"], 3),
        "linears_mfu": round(rates["ideal"] / rates["linears"], 3),
    }


def parsed(answer: str | None) -> Any:
    """The answer as JSON, where it is some: engines space it differently."""
    try:
        return json.loads(answer or "")
    except ValueError:
        return answer


def read_table(rows: int, *, sample: bool) -> tuple[str, pa.Table]:
    if not sample:
        return movies(rows)
    source, table = movies(15000)
    return source, table.take(pa.array(random.Random(5).sample(range(table.num_rows), rows)))


def prompts(workload: str, question: str, table: pa.Table) -> tuple[str, list[list[str]]]:
    """Instruction and segments of each row, as a Spark task would lay them out."""
    function = "llm_filter" if workload == "filter" else "llm"
    result = "boolean" if workload == "filter" else "string"
    fields = tuple(Field(name) for name in table.column_names)
    spec = CallSpec(function, question, fields, {}, result, {})
    sample = [column.slice(0, 2000).to_pylist() for column in table.columns]
    prompt = prepare(replace(spec, plan=plan_call(spec, sample, table.num_rows)))
    columns = [column.combine_chunks() for column in table.columns]
    distinct = pa.array(distinct_tuples(columns, table.num_rows).first)
    _, segments = lay_out(encode_window(prompt, [column.take(distinct) for column in columns]), fixed=False)
    return Call.from_dict(prompt.call).instruction, [list(pieces) for pieces in segments]


def vllm_reference(arguments: argparse.Namespace, model: str) -> ModelRef:
    best = {"block_size": 32, "enforce_eager": False}  # compiled by inductor: a tenth faster here
    settings = {"dtype": "bfloat16", "kv_tokens": KV_TOKENS, "max_length": 4096, **best}
    return ModelRef(model, "vllm", arguments.vllm_python, {**settings, **arguments.vllm_args})


def weight_shapes(model: str) -> list[list[int]]:
    """Every [out, in] that a prompt token is multiplied with."""
    config = read_config(read_json(find_model(model) / "config.json"))
    hidden, inner, width = config.hidden_size, config.intermediate_size, config.num_heads * config.head_dim
    rows = width + 2 * config.num_kv_heads * config.head_dim
    return [[rows, hidden], [hidden, width], [2 * inner, hidden], [hidden, inner]] * config.num_layers


class Child:
    """An engine in a process of its own, asked line by line."""

    def __init__(self, model: ModelRef, python: str, folder: Path) -> None:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
        if model.engine == "vllm":
            environment["PYTHONPATH"] = str(link_package(folder / "package"))
        self._log = (folder / f"{model.engine}.log").open("w+")
        self._process = subprocess.Popen(
            [python, str(HERE / "engine_child.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
        )
        assert self._process.stdin
        assert self._process.stdout
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._send(asdict(model))
        self.load_s = round(json.loads(self._receive())["load_s"], 2)

    def run(self, job: dict[str, Any]) -> Any:
        time.sleep(0.3)  # let the other engine's idle threads fall asleep
        self._send(job)
        return json.loads(self._receive())

    def close(self) -> None:
        self._stdin.close()
        self._process.wait(60)
        self._log.close()

    def _send(self, message: dict[str, Any]) -> None:
        self._stdin.write(json.dumps(message) + "\n")
        self._stdin.flush()

    def _receive(self) -> str:
        answer = self._stdout.readline()
        if not answer:
            self._log.seek(0)
            sys.exit(f"the engine's process ended:\n{self._log.read()[-3000:]}")
        return answer


if __name__ == "__main__":
    main()
