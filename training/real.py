"""Measure a model on real tables with labels: `python -m training.real`. None of their text enters training.

`synthetic` is TF-IDF + logistic regression that learnt from the model's own training data, as the model did;
`supervised` the same that learnt from other rows of the table itself, with its labels, as the model never does.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from spark_llm.serving.core import Engine, ModelRef
from spark_llm.serving.engines import create_engine

from training import labels
from training.baselines import TfidfRegression, majority
from training.evaluate import ask
from training.examples import Example

DATA = Path("../shared/data")
Rows = list[dict[str, Any]]


def rows_of(path: Path, needed: Sequence[str]) -> Rows:
    """The distinct rows in which the needed columns say something, in a fixed random order."""
    table = pq.read_table(path, columns=list(needed)).to_pylist()
    rows = list({json.dumps(row): row for row in table if all(row.values())}.values())
    random.Random(0).shuffle(rows)
    return rows


def _accuracy(found: Sequence[str | None], wanted: Sequence[str]) -> float:
    return round(sum(map(lambda f, w: f == w, found, wanted)) / len(wanted), 4)


def reviews(engine: Engine, rows: Rows, count: int) -> dict[str, Any]:
    """Critics' reviews, fresh or rotten, as positive or negative."""
    names = {"fresh": "positive", "rotten": "negative"}
    wanted = [names[row["reviewtype"]] for row in rows]
    texts = [row["reviewcontent"] for row in rows]
    asked = [
        Example(
            "reviews",
            "llm_classify",
            "Is the review positive or negative?",
            {"review": text},
            "",
            tuple(names.values()),
        )
        for text in texts[:count]
    ]
    rng = random.Random(0)
    drawn = [e for e in (labels.sentiment(rng, False) for _ in range(12_000)) if set(e.labels) == set(names.values())]
    synthetic = TfidfRegression([_shown(e) for e in drawn], [e.answer for e in drawn])
    supervised = TfidfRegression(texts[count : count + 5000], wanted[count : count + 5000])
    return {
        "examples": count,
        "accuracy": _accuracy(ask(engine, asked), wanted[:count]),
        "majority": round(majority(wanted[:count]), 4),
        "synthetic": _accuracy(synthetic.predict(texts[:count]), wanted[:count]),
        "supervised": _accuracy(supervised.predict(texts[:count]), wanted[:count]),
    }


def _shown(example: Example) -> str:
    return " ".join(str(value) for value in example.fields.values())


def claims(engine: Engine, rows: Rows, count: int) -> dict[str, Any]:
    """Claims about the climate, supported or refuted by four sentences."""
    rows = [row for row in rows if row["claim_label"] in ("SUPPORTS", "REFUTES")]
    wanted = [str(row["claim_label"] == "SUPPORTS").lower() for row in rows]
    shown = [{name: value for name, value in row.items() if name != "claim_label"} for row in rows]
    count = min(count, len(rows) // 2)  # the others teach the supervised baseline
    asked = [Example("claims", "llm_filter", "Does the evidence support the claim?", f, "") for f in shown[:count]]
    texts = [" ".join(fields.values()) for fields in shown]
    supervised = TfidfRegression(texts[count:], wanted[count:])
    return {
        "examples": len(asked),
        "accuracy": _accuracy(ask(engine, asked), wanted[:count]),
        "majority": round(majority(wanted[:count]), 4),
        "supervised": _accuracy(supervised.predict(texts[:count]), wanted[:count]),
    }


def normal(text: str) -> str:
    """An answer without case, articles and punctuation: SQuAD's exact match compares these (Rajpurkar et al., 2016).

    >>> normal("The  308 points.")
    '308 points'
    """
    bare = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def questions(engine: Engine, rows: Rows, count: int) -> dict[str, Any]:
    """Questions over five retrieved paragraphs, exact match."""
    asked = [
        Example(
            "questions",
            "llm",
            "Answer the question from the contexts.",
            {"question": row["question"], "contexts": [row[f"context{i}"] for i in range(1, 6)]},
            "",
        )
        for row in rows[:count]
    ]
    wanted = [normal(row["answer"]) for row in rows[:count]]
    found = [normal(answer or "") for answer in ask(engine, asked, max_tokens=16)]
    return {"examples": len(asked), "accuracy": _accuracy(found, wanted), "majority": round(majority(wanted), 4)}


TABLES = {
    "reviews": (reviews, "movies_15000x8.parquet", ("reviewcontent", "reviewtype")),
    "claims": (claims, "climate_fever_1535.parquet", ("claim", *(f"evidence{i}" for i in range(1, 5)), "claim_label")),
    "questions": (questions, "xquad_rag_1190x6.parquet", ("question", *(f"context{i}" for i in range(1, 6)), "answer")),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("spark_llm/default_model"))
    parser.add_argument(
        "--data", type=Path, default=DATA, help="folder of the tables; those that it lacks are left out"
    )
    parser.add_argument("--count", type=int, default=500, help="examples per table")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    engine = create_engine(ModelRef(str(args.model)))
    report = {
        name: measure(engine, rows_of(args.data / file, needed), args.count)
        for name, (measure, file, needed) in TABLES.items()
        if (args.data / file).exists()
    }
    engine.close()
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
