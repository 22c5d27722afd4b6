"""A question about a row with its one right answer, and the fields that it shows."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from training import topics, words
from training.kinds import KINDS
from training.rows import Row, Tags


@dataclass(frozen=True, slots=True)
class Example:
    """One question as a user would write it in SQL, and the answer text expected of the model.

    `instruction` is '' where the function's default is meant; `labels` belong to `llm_classify`, `returns` (DDL) to
    `llm_extract`; `fields` are in the order in which the model sees them. `tags` tell phrases of prompt
    and record, `label_tags` what each label means, and `gist` (a tag) what the record says on the matter asked.
    """

    task: str
    function: str
    instruction: str
    fields: Mapping[str, Any]
    answer: str
    labels: tuple[str, ...] = ()
    returns: str = ""
    system: str = ""
    tags: Tags = ()
    label_tags: tuple[str, ...] = ()
    gist: str = ""


def shuffled(rng: random.Random, fields: Mapping[str, Any]) -> dict[str, Any]:
    return dict(rng.sample(sorted(fields.items()), len(fields)))


_DISTRACTORS: dict[str, Callable[[random.Random], str | int | float | None]] = {
    "id": lambda rng: rng.randrange(1, 10000),
    "price": lambda rng: round(rng.uniform(1, 500), 2),
    "date": lambda rng: f"{rng.randrange(2015, 2026)}-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02}",
    "user": lambda rng: rng.choice(words.FIRST_NAMES),
    "note": lambda _rng: None,
    "verified": lambda rng: rng.random() < 0.5,
}


def some_fields(rng: random.Random, row: Row, needed: tuple[str, ...]) -> dict[str, Any]:
    """The needed fields and some others, in random order; text columns go by several names."""
    kept = {k: v for k, v in row.fields.items() if k in needed or rng.random() < 0.2}
    names = {
        "review": ("review", "review", "text", "review_text", "comment", "reviewcontent"),
        "message": ("message", "text", "body", "ticket"),
        "text": ("text", "article", "body"),
        "context": ("context", "text", "paragraph"),
    }
    for name, make in _DISTRACTORS.items():
        if rng.random() < 0.05:
            kept[name] = make(rng)
    return shuffled(rng, {rng.choice(names.get(k, (k,))): v for k, v in kept.items()})


def random_row(rng: random.Random, held_out: bool, *kinds: str) -> Row:
    return KINDS[rng.choice(kinds)](rng, held_out)


TOPICS: dict[str, tuple[tuple[str, ...], str, tuple[str, ...]]] = {
    "ticket": (tuple(sorted(topics.TICKETS)), "topic", ("message",)),
    "news": (tuple(sorted(topics.NEWS)), "topic", ("headline", "text")),
    "review": (tuple(sorted(words.PRODUCTS)), "category", ("product", "review")),
}


def topic_tag(kind: str, topic: str) -> str:
    """The tag of a topic of a kind of rows."""
    return f"{'category' if kind == 'review' else kind}:{topic}"
