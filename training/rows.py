"""A synthetic row: text fields of a table together with the facts they were made from.

A row never states a fact that its text does not show, so that every question about it has one right answer.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from training import phrases, words

Fields = dict[str, str | int]
Tags = tuple[tuple[str, str], ...]
"""Phrases of the text with what each says, such as `("great value for money", "price+")`."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table: what the model sees (`fields`) and what is known about it (`facts`).

    Facts of opinions are `polarity` (positive, negative, mixed or neutral), `stars` (1 to 5), `aspects` (aspect name to
    +1 or -1) and `kids` (True, False or None where the text does not say); other kinds have facts of their own.
    """

    kind: str
    fields: Fields
    facts: Mapping[str, object] = field(default_factory=dict)
    tags: Tags = ()


def person(rng: random.Random, held_out: bool) -> str:
    """A full name; the family name is invented."""
    return f"{rng.choice(words.FIRST_NAMES)} {words.invented_name(rng, held_out)}"


def common_slots(rng: random.Random, held_out: bool) -> dict[str, str]:
    """Values for the slots that many templates share."""
    return {
        "time": rng.choice(words.TIMES),
        "person": rng.choice(words.PEOPLE),
        "month": rng.choice(words.MONTHS),
        "city": rng.choice(words.CITIES),
        "name": words.invented_name(rng, held_out),
        "actor": person(rng, held_out),
        "dish": rng.choice(phrases.DISHES),
        "colour": rng.choice(words.COLOURS),
        "number": str(rng.randrange(2, 99)),
        "digit": str(rng.randrange(0, 9)),
    }
