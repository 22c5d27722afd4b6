"""Measure a model on synthetic questions, through the native engine: `python -m training.evaluate`.

Prints one JSON object. `held_out` uses names, question wordings and sentence templates that training never shows;
`seen` draws new rows from those it does. `baseline` is what no reading reaches: a guess among the labels of a prompt
where it names some, else always the most frequent answer.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from spark_llm.optimizer.prompts import prepare
from spark_llm.serving.core import Call, Engine, ModelRef, Request
from spark_llm.serving.engines import create_engine

from training.examples import Example
from training.render import call_spec, segments
from training.tasks import example

Figures = dict[str, dict[str, float]]


def ask(engine: Engine, examples: Sequence[Example]) -> list[str | None]:
    """The model's answer to each example; None where it failed."""
    requests = []
    for number, asked in enumerate(examples):
        prompt = prepare(call_spec(asked))
        requests.append(Request(number, Call.from_dict(prompt.call), segments(prompt, asked.fields)))
    engine.submit(requests)
    answers: dict[int, str | None] = {}
    while engine.has_work():
        answers |= {finished.request_id: finished.text for finished in engine.step()}
    return [answers[number] for number in range(len(examples))]


def same(asked: Example, answer: str | None) -> bool:
    """Whether an answer is the expected one; JSON is compared by value."""
    if answer is None or not asked.returns:
        return answer is not None and answer.strip() == asked.answer
    try:
        return bool(json.loads(answer) == json.loads(asked.answer))
    except ValueError:
        return False


def by_task(examples: Sequence[Example], answers: Sequence[str | None]) -> Figures:
    """Number of examples, accuracy and baseline of every task."""
    tasks = defaultdict(list)
    for asked, answer in zip(examples, answers, strict=True):
        tasks[asked.task].append((asked, same(asked, answer)))
    return {
        task: {
            "examples": len(pairs),
            "accuracy": round(sum(right for _, right in pairs) / len(pairs), 4),
            "baseline": round(_baseline([asked for asked, _ in pairs]), 4),
        }
        for task, pairs in sorted(tasks.items())
    }


def _baseline(examples: Sequence[Example]) -> float:
    if all(asked.labels for asked in examples):
        return sum(1 / len(asked.labels) for asked in examples) / len(examples)
    return Counter(asked.answer for asked in examples).most_common(1)[0][1] / len(examples)


def order_sensitivity(engine: Engine, examples: Sequence[Example], answers: Sequence[str | None]) -> dict[str, float]:
    """Accuracy with the fields as drawn and reversed, and the share of equal answers."""
    several = [(e, a) for e, a in zip(examples, answers, strict=True) if len(e.fields) > 1]
    turned = [replace(e, fields=dict(reversed(e.fields.items()))) for e, _ in several]
    again = ask(engine, turned)
    pairs = list(zip(several, again, strict=True))
    return {
        "examples": len(pairs),
        "accuracy": round(sum(same(e, a) for (e, a), _ in pairs) / len(pairs), 4),
        "accuracy_reversed": round(sum(same(e, b) for (e, _), b in pairs) / len(pairs), 4),
        "agreement": round(sum(a == b for (_, a), b in pairs) / len(pairs), 4),
    }


def evaluate(model: Path, count: int, seed: int) -> dict[str, Any]:
    """All figures of a model directory."""
    engine = create_engine(ModelRef(str(model)))
    report: dict[str, Any] = {"model": model.name, "seed": seed}
    for part, held_out in (("held_out", True), ("seen", False)):
        rng = random.Random(f"evaluation/{seed}/{part}")
        examples = [example(rng, held_out) for _ in range(count)]
        begin = time.monotonic()
        answers = ask(engine, examples)
        report[part] = {"seconds": round(time.monotonic() - begin, 1), "tasks": by_task(examples, answers)}
        if held_out:
            report["field_order"] = order_sensitivity(engine, examples, answers)
    engine.close()
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("spark_llm/default_model"))
    parser.add_argument("--count", type=int, default=2000, help="examples per part")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(json.dumps(evaluate(args.model, args.count, args.seed), indent=2))


if __name__ == "__main__":
    main()
