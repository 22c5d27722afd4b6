"""The mixture of tasks that the model is trained and measured on."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from training import filters, labels, texts
from training.examples import Example

TASKS: dict[Callable[[random.Random, bool], Example], float] = {
    labels.sentiment: 0.14,
    filters.filter_sentiment: 0.08,
    filters.filter_aspect: 0.08,
    filters.filter_audience: 0.05,
    filters.filter_tone: 0.04,
    filters.filter_topic: 0.09,
    filters.filter_fact: 0.09,
    labels.topic: 0.11,
    labels.tone: 0.02,
    texts.extract: 0.19,
    labels.rating: 0.03,
    texts.answer: 0.04,
    texts.repeat: 0.02,
    texts.recall: 0.06,
    texts.summary: 0.04,
}
"""Every task with its share of the training examples."""


_SYSTEM = (
    "You are a helpful assistant.",
    "You read tables.",
    "You are a careful analyst.",
    "Be brief.",
    "You work for a shop.",
)


def example(rng: random.Random, held_out: bool, draws: int = 1) -> Example:
    """Draw one example of a random task: the shortest of `draws`, for a beginner."""
    task = rng.choices(list(TASKS), weights=list(TASKS.values()))[0]
    drawn = min((task(rng, held_out) for _ in range(draws)), key=_length)
    return replace(drawn, system=rng.choice(_SYSTEM)) if rng.random() < 0.03 else drawn


def _length(drawn: Example) -> int:
    return sum(map(len, (drawn.instruction, drawn.answer, *map(str, drawn.fields.values()), *drawn.labels)))
