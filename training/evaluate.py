"""Measure a model on synthetic questions, through the native engine: `python -m training.evaluate`.

Prints one JSON object. `held_out` uses names, question wordings and sentence templates that training never shows;
`seen` draws new rows from those it does. `majority` is always the most frequent answer of a task or, where prompts name
labels of their own, a guess among them; `tfidf` is logistic regression on TF-IDF of the prompt's text that learnt from
`--learn` examples of the training.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from spark_llm.optimizer.prompts import prepare
from spark_llm.serving.core import Call, Engine, ModelRef, Request
from spark_llm.serving.engines import create_engine

from training.baselines import TfidfRegression, majority
from training.examples import Example
from training.render import call_spec, prompt_text, segments
from training.tasks import example

Figures = dict[str, dict[str, float]]


def ask(engine: Engine, examples: Sequence[Example], max_tokens: int = 96) -> list[str | None]:
    """The model's answer to each example, of at most so many tokens; None where it failed."""
    requests = []
    for number, asked in enumerate(examples):
        prompt = prepare(call_spec(asked))
        requests.append(
            Request(
                number,
                Call.from_dict({**prompt.call, "max_tokens": min(max_tokens, prompt.call["max_tokens"])}),
                segments(prompt, asked.fields),
            )
        )
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


def by_task(examples: Sequence[Example], answers: Sequence[str | None], baseline: Baseline | None = None) -> Figures:
    """Number of examples, accuracy and baselines of every task; extractions also how many keep to their schema."""
    tasks = defaultdict(list)
    for asked, answer in zip(examples, answers, strict=True):
        tasks[asked.task].append((asked, answer))
    return {task: _figures(pairs, baseline) for task, pairs in sorted(tasks.items())}


def _figures(pairs: Sequence[tuple[Example, str | None]], baseline: Baseline | None) -> dict[str, float]:
    examples = [asked for asked, _ in pairs]
    figures = {"accuracy": _mean(same(*pair) for pair in pairs), "majority": _mean(_guess(examples))}
    if baseline and (found := baseline.answer(examples)):
        figures["tfidf"] = _mean(same(asked, answer) for asked, answer in zip(examples, found, strict=True))
    if all(asked.returns for asked in examples):
        figures["valid"] = _mean(_keeps_schema(*pair) for pair in pairs)
    return {"examples": len(pairs), **figures}


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return round(sum(listed) / len(listed), 4)


def _guess(examples: Sequence[Example]) -> list[float]:
    if all(asked.labels for asked in examples):
        return [1 / len(asked.labels) for asked in examples]
    return [majority([asked.answer for asked in examples])]


def _keeps_schema(asked: Example, answer: str | None) -> bool:
    """Whether an answer is JSON of the expected answer's form: the constraint that SQL sets gives nothing else."""
    try:
        found, wanted = json.loads(answer or ""), json.loads(asked.answer)
    except ValueError:
        return False
    return found.keys() == wanted.keys() if isinstance(wanted, dict) else isinstance(found, type(wanted))


class Baseline:
    """TF-IDF + logistic regression, one per task, from `count` examples of the training altogether."""

    def __init__(self, count: int, seed: int) -> None:
        rng = random.Random(f"baseline/{seed}")
        shown = defaultdict(list)
        for asked in (example(rng, held_out=False) for _ in range(count)):
            shown[asked.task].append(asked)
        self._tasks = {
            task: TfidfRegression([prompt_text(e) for e in drawn], [e.answer for e in drawn])
            for task, drawn in shown.items()
            if len({e.answer for e in drawn}) < len(drawn) / 2  # else its answers are no classes
        }

    def answer(self, examples: Sequence[Example]) -> list[str]:
        """The answers to examples of one task; none where they are no classes."""
        model = self._tasks.get(examples[0].task)
        if model is None:
            return []
        texts = [prompt_text(e) for e in examples]
        return model.predict(texts, [e.labels for e in examples] if all(e.labels for e in examples) else None)


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


def evaluate(model: Path, count: int, seed: int, learn: int) -> dict[str, Any]:
    """All figures of a model directory."""
    engine = create_engine(ModelRef(str(model)))
    report: dict[str, Any] = {"model": model.name, "seed": seed}
    baseline = Baseline(learn, seed) if learn else None
    for part, held_out in (("held_out", True), ("seen", False)):
        rng = random.Random(f"evaluation/{seed}/{part}")
        examples = [example(rng, held_out) for _ in range(count)]
        begin = time.monotonic()
        answers = ask(engine, examples)
        report[part] = {"seconds": round(time.monotonic() - begin, 1), "tasks": by_task(examples, answers, baseline)}
        if held_out:
            report["field_order"] = order_sensitivity(engine, examples, answers)
    engine.close()
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("spark_llm/default_model"))
    parser.add_argument("--count", type=int, default=2000, help="examples per part")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--learn", type=int, default=6000, help="examples for the TF-IDF baseline; 0 leaves it out")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(json.dumps(evaluate(args.model, args.count, args.seed, args.learn), indent=2))


if __name__ == "__main__":
    main()
