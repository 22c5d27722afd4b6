"""The kinds of rows: reviews of products, films and places, support tickets, news, and company profiles."""

from __future__ import annotations

import random
from collections.abc import Callable

from training import phrases, topics, words
from training.critics import critique
from training.grammar import expand, pick, sentence
from training.opinions import KIDS_TAGS, Subject, noise, review
from training.rows import Fields, Row, Tags, common_slots, person


def describe(rng: random.Random, thing: str, held_out: bool, kids: bool | None) -> tuple[str, Tags]:
    """A shop's description of a product, which may say for whom it is, and its tagged phrases."""
    slots = {**common_slots(rng, held_out), "thing": thing}
    forms = phrases.DESCRIPTIONS_OF_MANY if thing.endswith("s") else phrases.DESCRIPTIONS_OF_ONE
    said = [expand(rng, rng.choice(forms), slots)]
    if kids is not None:
        suits = phrases.DESCRIBED_FOR_KIDS if kids else phrases.DESCRIBED_NOT_FOR_KIDS
        said.append(expand(rng, pick(rng, suits, held_out), slots))
    return " ".join(sentence(part) for part in said), tuple((part, KIDS_TAGS[bool(kids)]) for part in said[1:])


def aspects_of(category: str) -> tuple[str, ...]:
    """The aspects that an opinion on a product of this category can be about."""
    return tuple(a for a in phrases.ASPECTS["product"] if category in phrases.ONLY_FOR.get(a, (category,)))


def open_review(rng: random.Random, product: str, text: str, held_out: bool) -> str:
    """Every other time, let the review begin by naming its product."""
    if rng.random() >= 0.5:
        return text
    openers = ("I bought the {p} {t}", "this is my review of the {p}", "the {p} is a present for my {who}")
    slots = {"p": product, "t": words.TIMES, "who": words.PEOPLE}
    return sentence(expand(rng, pick(rng, openers, held_out), slots)) + " " + text


def product_review(rng: random.Random, held_out: bool) -> Row:
    """A shop's review with product, category and description."""
    category = rng.choice(sorted(words.PRODUCTS))
    thing = rng.choice(words.PRODUCTS[category])
    kids = rng.choice((None, None, None, True, False))
    described = kids is not None and rng.random() < 0.5
    text, facts, tags = review(
        rng, Subject("product", thing, aspects_of(category)), held_out, None if described else kids
    )
    name = f"{words.invented_name(rng, held_out)} {thing}"
    text = open_review(rng, name, text, held_out)
    description, said = describe(rng, thing, held_out, kids if described else None)
    fields: Fields = {"product": name, "category": category, "description": description, "review": text}
    return Row(
        "review",
        fields,
        {**facts, "kids": kids, "category": category, "product": name, "thing": thing},
        (*tags, *said, (thing, f"category:{category}")),
    )


def film_review(rng: random.Random, held_out: bool) -> Row:
    """A film's review with title, plot line, genre and year."""
    kids = rng.choice((None, True, False))
    said_in = rng.choice(("plot", "review", "both")) if kids is not None else "none"
    subject = Subject("film", "film", tuple(phrases.ASPECTS["film"]))
    text, facts, tags = review(rng, subject, held_out, kids if said_in in ("review", "both") else None)
    plots = {True: phrases.PLOTS_FOR_KIDS, False: phrases.PLOTS_FOR_ADULTS}
    plot = plots[bool(kids)] if said_in in ("plot", "both") else phrases.PLOTS_NEUTRAL
    slots = {**common_slots(rng, held_out), "city": words.CITIES}
    title = expand(
        rng,
        rng.choice(
            ("The [Last|Lost|Secret|Blue] {name}", "{name}", "{name} [Rising|Returns]", "A [Night|Day] in {name}")
        ),
        slots,
    )
    story = sentence(expand(rng, pick(rng, plot, held_out), slots))
    if said_in in ("plot", "both"):
        tags = (*tags, (story, KIDS_TAGS[bool(kids)]))
    fields: Fields = {
        "title": title,
        "movieinfo": story,
        "genre": rng.choice(phrases.GENRES),
        "year": rng.randrange(1950, 2026),
        "review": text,
    }
    return Row("film", fields, {**facts, "kids": kids, "said_in": said_in, "title": title}, tags)


def place_review(rng: random.Random, held_out: bool) -> Row:
    """A review of a restaurant, hotel or other place."""
    thing = rng.choice(phrases.PLACES)
    subject = Subject("place", thing, tuple(phrases.ASPECTS["place"]))
    text, facts, tags = review(rng, subject, held_out, rng.choice((None, None, True, False)))
    city, name = rng.choice(words.CITIES), f"{thing.title()} {words.invented_name(rng, held_out)}"
    if rng.random() < 0.6:
        opener = pick(
            rng,
            ("we stayed at {n} in {c}", "{n} in {c} is a {t}", "last year we found {n} in {c}", "a visit to {n}, {c}"),
            held_out,
        )
        text = sentence(expand(rng, opener, {"n": name, "c": city, "t": thing})) + " " + text
    return Row("place", {"place": name, "city": city, "review": text}, {**facts, "place": name, "city": city}, tags)


def ticket(rng: random.Random, held_out: bool) -> Row:
    """A message to a support team, with a topic, a tone and perhaps an urgency."""
    topic, tone = rng.choice(sorted(topics.TICKETS)), rng.choice(("angry", "polite", "neutral"))
    tone = "polite" if topic == "praise" else tone
    slots = {**common_slots(rng, held_out), "product": rng.choice(words.PRODUCTS[rng.choice(sorted(words.PRODUCTS))])}
    parts = [sentence(expand(rng, pick(rng, topics.TICKETS[topic], held_out), slots))]
    tags = [(parts[0], f"ticket:{topic}")]
    if mood := expand(rng, pick(rng, topics.TONES[tone], held_out), slots):
        parts.insert(rng.choice((0, 1)), sentence(mood))
        tags.append((mood, f"tone:{tone}"))
    urgent = rng.choice((None, True, False)) if topic != "praise" else None
    if urgent is not None:
        parts.append(sentence(expand(rng, pick(rng, topics.URGENT if urgent else topics.NOT_URGENT, held_out), slots)))
        tags.append((parts[-1], "urgent+" if urgent else "urgent-"))
    facts = {"topic": topic, "tone": tone, "urgent": urgent}
    return Row(
        "ticket", {"customer": person(rng, held_out), "message": noise(rng, " ".join(parts))}, facts, tuple(tags)
    )


def news(rng: random.Random, held_out: bool) -> Row:
    """One to three sentences of news about one topic."""
    topic = rng.choice(sorted(topics.NEWS))
    keys, templates = topics.NEWS[topic]
    said = [
        sentence(
            expand(
                rng, pick(rng, templates, held_out), {**common_slots(rng, held_out), "city": words.CITIES, "key": keys}
            )
        )
        for _ in range(rng.choice((1, 2, 2, 3)))
    ]
    return Row(
        "news",
        {"headline": said[0], "text": " ".join(said[1:] or said)},
        {"topic": topic},
        tuple((text, f"news:{topic}") for text in said),
    )


_PROFILE = {
    "founder": (
        "{name} was founded by {founder} in {year}.",
        "{founder} started {name} in {year}.",
        "In {year}, {founder} founded {name}.",
    ),
    "city": ("Its head office is in {city}.", "The company is based in {city}.", "Today it works from {city}."),
    "product": ("It makes {product}.", "It sells {product}.", "{name} is known for its {product}."),
    "employees": (
        "It has {employees} employees.",
        "About {employees} people work there.",
        "It employs {employees} people.",
    ),
    "head": (
        "It is led by {head}.",
        "Today it is run by {head}.",
        "The head of {name} is {head}.",
        "Its head is {head}.",
        "{name} is led by {head}.",
        "{head} runs the company today.",
    ),
}


def profile(rng: random.Random, held_out: bool) -> Row:
    """A short article about an invented company, for questions whose answer stands in the text."""
    category = rng.choice(("electronics", "toys", "garden", "furniture"))
    facts = {
        "name": words.invented_name(rng, held_out),
        "founder": person(rng, held_out),
        "year": str(rng.randrange(1850, 2025)),
        "city": rng.choice(words.CITIES),
        "product": rng.choice([f"{p}s" for p in words.PRODUCTS[category] if not p.endswith(("s", "f", "ch"))]),
        "employees": str(rng.randrange(12, 9000)),
        "head": person(rng, held_out),
    }
    told = ["founder", *rng.sample(("city", "product", "employees", "head"), rng.choice((1, 2, 3)))]
    text = " ".join(expand(rng, pick(rng, _PROFILE[t], held_out), facts) for t in told)
    shown = {"name", "year", *told}
    tags = tuple((str(facts[t]), f"profile:{t}") for t in (*told, "year"))
    return Row(
        "profile", {"company": facts["name"], "context": text}, {k: v for k, v in facts.items() if k in shown}, tags
    )


KINDS: dict[str, Callable[[random.Random, bool], Row]] = {
    "review": product_review,
    "film": film_review,
    "critique": critique,
    "place": place_review,
    "ticket": ticket,
    "news": news,
    "profile": profile,
}
