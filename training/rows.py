"""Synthetic rows: text fields of a table together with the facts they were made from.

A row never states a fact that its text does not show, so that every question about it has one right answer.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from training import phrases, words
from training.grammar import expand, pick, sentence

Fields = dict[str, str | int]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table: what the model sees (`fields`) and what is known about it (`facts`).

    Facts of opinions are `polarity` (positive, negative, mixed or neutral), `stars` (1 to 5), `aspects` (aspect name to
    +1 or -1) and `kids` (True, False or None where the text does not say); other kinds have facts of their own.
    """

    kind: str
    fields: Fields
    facts: Mapping[str, object] = field(default_factory=dict)


def person(rng: random.Random, held_out: bool) -> str:
    """A full name; the family name is invented."""
    return f"{rng.choice(words.FIRST_NAMES)} {words.invented_name(rng, held_out)}"


def _slots(rng: random.Random, held_out: bool) -> dict[str, str]:
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


_JUDGED = (
    "the {noun} is {adjective}", "the {noun} was {adjective}", "{adjective} {noun}", "I find the {noun} {adjective}",
    "{very} {adjective} {noun}", "[what a|such] {adjective} {noun}", "the {noun} is {very} {adjective}", "the {noun} turned out {adjective}",
    "its {noun} is {adjective}", "in my opinion the {noun} is {adjective}", "I thought the {noun} was {adjective}",
)  # fmt: skip
_DENIED = (
    "the {noun} is not {adjective}", "the {noun} is anything but {adjective}", "I would not call the {noun} {adjective}",
    "the {noun} was not {adjective} at all", "nobody could call the {noun} {adjective}", "the {noun} is far from {adjective}",
    "the {noun} is never {adjective}", "there is nothing {adjective} about the {noun}",
)  # fmt: skip
_CONTRAST = (
    "{first}, but {second}", "although {first}, {second}", "{first}; however, {second}", "{first}, yet {second}", "while {first}, {second}",
    "{first}. On the other hand, {second}", "even though {first}, {second}", "{first}. Still, {second}", "despite that {first}, {second}",
)  # fmt: skip

_ADJECTIVES = {2: words.GREAT, 1: words.GOOD, -1: words.BAD, -2: words.AWFUL}


def opinion(rng: random.Random, aspect: phrases.Aspect, strength: int, slots: Mapping[str, str], held_out: bool) -> str:
    """A clause that praises (`strength` 1 or 2) or blames (-1 or -2) an aspect, sometimes through a negation."""
    how = rng.random()
    if how < 0.3:
        return expand(rng, rng.choice(aspect.praise if strength > 0 else aspect.blame), slots)
    inner = {"noun": rng.choice(aspect.nouns), "very": words.VERY}
    if how < 0.42:
        opposite = -1 if strength > 0 else 1
        return expand(rng, pick(rng, _DENIED, held_out), {**inner, "adjective": rng.choice(_ADJECTIVES[opposite])})
    return expand(rng, pick(rng, _JUDGED, held_out), {**inner, "adjective": rng.choice(_ADJECTIVES[strength])})


def _noise(rng: random.Random, text: str) -> str:
    """Sometimes write as people do: lower case, no full stop, exclamation marks, a swapped letter."""
    how = rng.random()
    if how < 0.07:
        return text.lower()
    if how < 0.12:
        return text.replace(".", "!")
    if how < 0.16 and len(text) > 8:
        i = rng.randrange(2, len(text) - 3)
        return text[:i] + text[i + 1] + text[i] + text[i + 2 :]
    return text


def _strengths(rng: random.Random, polarity: str, aspects: int) -> tuple[int, list[int]]:
    """The verdict (0 for none) and one strength per aspect that make up a polarity."""
    sign = {"positive": 1, "negative": -1}.get(polarity, 0)
    if sign == 0:
        first = rng.choice((1, -1))
        return 0, [first * (-1) ** i for i in range(aspects)]
    level = rng.choice((1, 2)) * sign
    strengths = [level] * aspects
    verdict = level if aspects == 0 or rng.random() < 0.6 else 0
    if verdict and aspects > 1 and rng.random() < 0.25:
        strengths[-1] = -sign
        verdict = sign
    return verdict, strengths


def _stars(verdict: int, strengths: list[int]) -> int:
    if not verdict and {1, -1} <= {1 if s > 0 else -1 for s in strengths}:
        return 3
    total = [*strengths, verdict, verdict] if verdict else strengths
    mean = sum(total) / len(total) if total else 0
    return 3 if mean == 0 else round(3 + (2 if abs(mean) > 1.2 else 1) * (1 if mean > 0 else -1))


def _joined(rng: random.Random, clauses: list[str], strengths: list[int], held_out: bool) -> list[str]:
    """Sentences of the clauses; the last two may share one, with a conjunction that fits their signs."""
    texts = [sentence(c) for c in clauses]
    if len(clauses) < 2:
        return texts
    contrast = strengths[-1] * strengths[-2] < 0
    if contrast or rng.random() < 0.4:
        form = pick(rng, _CONTRAST, held_out) if contrast else "{first} and {second}"
        texts[-2:] = [sentence(expand(rng, form, {"first": clauses[-2], "second": clauses[-1]}))]
    return texts


@dataclass(frozen=True, slots=True)
class _Subject:
    """What a review is about: its domain, the thing, and the aspects it can have."""

    domain: str
    thing: str
    aspects: tuple[str, ...]


def _review(rng: random.Random, subject: _Subject, held_out: bool, kids: bool | None) -> tuple[str, dict[str, object]]:
    """A review text and its facts."""
    slots = {**_slots(rng, held_out), "thing": subject.thing}
    polarity = rng.choice(("positive", "positive", "negative", "negative", "mixed", "neutral"))
    count = {"neutral": 0, "mixed": rng.choice((2, 2, 3))}.get(polarity, rng.choice((0, 1, 1, 2, 2, 3)))
    names = rng.sample(subject.aspects, count)
    verdict, strengths = _strengths(rng, polarity, count)
    aspects = phrases.ASPECTS[subject.domain]
    clauses = [opinion(rng, aspects[n], s, slots, held_out) for n, s in zip(names, strengths, strict=True)]
    texts = _joined(rng, clauses, strengths, held_out)
    if verdict:
        texts.insert(rng.choice((0, len(texts))), sentence(expand(rng, rng.choice(phrases.VERDICTS[verdict]), slots)))
    if polarity == "neutral" or rng.random() < 0.35:
        texts.insert(0, sentence(expand(rng, pick(rng, phrases.NEUTRAL[subject.domain], held_out), slots)))
    if kids is not None:
        said = (phrases.FOR_KIDS if kids else phrases.NOT_FOR_KIDS)[subject.domain]
        texts.insert(rng.randrange(len(texts) + 1), sentence(expand(rng, pick(rng, said, held_out), slots)))
    signs = {n: 1 if s > 0 else -1 for n, s in zip(names, strengths, strict=True)}
    facts = {"polarity": polarity, "stars": _stars(verdict, strengths), "aspects": signs, "kids": kids}
    return _noise(rng, " ".join(texts)), {**facts, "domain": subject.domain}


def product_review(rng: random.Random, held_out: bool) -> Row:
    """A shop's review with product, category and stars."""
    category = rng.choice(sorted(words.PRODUCTS))
    thing = rng.choice(words.PRODUCTS[category])
    fitting = tuple(a for a in phrases.ASPECTS["product"] if category in phrases.ONLY_FOR.get(a, (category,)))
    kids = rng.choice((None, None, None, True, False))
    text, facts = _review(rng, _Subject("product", thing, fitting), held_out, kids)
    name = f"{words.invented_name(rng, held_out)} {thing}"
    if rng.random() < 0.5:
        opener = pick(
            rng, ("I bought the {p} {t}", "this is my review of the {p}", "the {p} is a present for my {who}"), held_out
        )
        slots = {"p": name, "t": words.TIMES, "who": words.PEOPLE}
        text = sentence(expand(rng, opener, slots)) + " " + text
    return Row(
        "review", {"product": name, "review": text}, {**facts, "category": category, "product": name, "thing": thing}
    )


def film_review(rng: random.Random, held_out: bool) -> Row:
    """A film's review with title, plot line, genre and year."""
    kids = rng.choice((None, True, False))
    said_in = rng.choice(("plot", "review", "both")) if kids is not None else "none"
    subject = _Subject("film", "film", tuple(phrases.ASPECTS["film"]))
    text, facts = _review(rng, subject, held_out, kids if said_in in ("review", "both") else None)
    plots = {True: phrases.PLOTS_FOR_KIDS, False: phrases.PLOTS_FOR_ADULTS}
    plot = plots[bool(kids)] if said_in in ("plot", "both") else phrases.PLOTS_NEUTRAL
    slots = {**_slots(rng, held_out), "city": words.CITIES}
    title = expand(
        rng,
        rng.choice(
            ("The [Last|Lost|Secret|Blue] {name}", "{name}", "{name} [Rising|Returns]", "A [Night|Day] in {name}")
        ),
        slots,
    )
    fields: Fields = {
        "title": title,
        "movieinfo": sentence(expand(rng, pick(rng, plot, held_out), slots)),
        "genre": rng.choice(phrases.GENRES),
        "year": rng.randrange(1950, 2026),
        "review": text,
    }
    return Row("film", fields, {**facts, "kids": kids, "said_in": said_in, "title": title})


def place_review(rng: random.Random, held_out: bool) -> Row:
    """A review of a restaurant, hotel or other place."""
    thing = rng.choice(phrases.PLACES)
    subject = _Subject("place", thing, tuple(phrases.ASPECTS["place"]))
    text, facts = _review(rng, subject, held_out, rng.choice((None, None, True, False)))
    city, name = rng.choice(words.CITIES), f"{thing.title()} {words.invented_name(rng, held_out)}"
    if rng.random() < 0.6:
        opener = pick(
            rng,
            ("we stayed at {n} in {c}", "{n} in {c} is a {t}", "last year we found {n} in {c}", "a visit to {n}, {c}"),
            held_out,
        )
        text = sentence(expand(rng, opener, {"n": name, "c": city, "t": thing})) + " " + text
    return Row("place", {"place": name, "city": city, "review": text}, {**facts, "place": name, "city": city})


def ticket(rng: random.Random, held_out: bool) -> Row:
    """A message to a support team, with a topic, a tone and perhaps an urgency."""
    topic, tone = rng.choice(sorted(phrases.TICKET_TOPICS)), rng.choice(("angry", "polite", "neutral"))
    tone = "polite" if topic == "praise" else tone
    slots = {**_slots(rng, held_out), "product": rng.choice(words.PRODUCTS[rng.choice(sorted(words.PRODUCTS))])}
    parts = [sentence(expand(rng, pick(rng, phrases.TICKET_TOPICS[topic], held_out), slots))]
    if mood := expand(rng, pick(rng, phrases.TONES[tone], held_out), slots):
        parts.insert(rng.choice((0, 1)), sentence(mood))
    urgent = rng.choice((None, True, False)) if topic != "praise" else None
    if urgent is not None:
        parts.append(
            sentence(expand(rng, pick(rng, phrases.URGENT if urgent else phrases.NOT_URGENT, held_out), slots))
        )
    facts = {"topic": topic, "tone": tone, "urgent": urgent}
    return Row("ticket", {"customer": person(rng, held_out), "message": _noise(rng, " ".join(parts))}, facts)


def news(rng: random.Random, held_out: bool) -> Row:
    """One to three sentences of news about one topic."""
    topic = rng.choice(sorted(phrases.NEWS))
    keys, templates = phrases.NEWS[topic]
    said = [
        sentence(
            expand(rng, pick(rng, templates, held_out), {**_slots(rng, held_out), "city": words.CITIES, "key": keys})
        )
        for _ in range(rng.choice((1, 2, 2, 3)))
    ]
    return Row("news", {"headline": said[0], "text": " ".join(said[1:] or said)}, {"topic": topic})


_PROFILE = {
    "founder": (
        "{name} was founded by {founder} in {year}.",
        "{founder} started {name} in {year}.",
        "In {year}, {founder} founded {name}.",
    ),
    "city": ("Its head office is in {city}.", "The company is based in {city}.", "Today it works from {city}."),
    "product": ("It makes {product}s.", "It sells {product}s.", "{name} is known for its {product}s."),
    "employees": (
        "It has {employees} employees.",
        "About {employees} people work there.",
        "It employs {employees} people.",
    ),
    "head": ("It is led by {head}.", "{head} runs the company today.", "The head of {name} is {head}."),
}


def profile(rng: random.Random, held_out: bool) -> Row:
    """A short article about an invented company, for questions whose answer stands in the text."""
    category = rng.choice(("electronics", "toys", "garden", "furniture"))
    facts = {
        "name": words.invented_name(rng, held_out),
        "founder": person(rng, held_out),
        "year": str(rng.randrange(1850, 2025)),
        "city": rng.choice(words.CITIES),
        "product": rng.choice([p for p in words.PRODUCTS[category] if not p.endswith("s")]),
        "employees": str(rng.randrange(12, 9000)),
        "head": person(rng, held_out),
    }
    told = ["founder", *rng.sample(("city", "product", "employees", "head"), rng.choice((1, 2, 3)))]
    text = " ".join(expand(rng, pick(rng, _PROFILE[t], held_out), facts) for t in told)
    shown = {"name", "year", *told}
    return Row("profile", {"company": facts["name"], "context": text}, {k: v for k, v in facts.items() if k in shown})


KINDS: dict[str, Callable[[random.Random, bool], Row]] = {
    "review": product_review,
    "film": film_review,
    "place": place_review,
    "ticket": ticket,
    "news": news,
    "profile": profile,
}
