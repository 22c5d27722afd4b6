"""Yes/no questions about sentiment, aspects, audience, tone, topic and facts."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any

from training import phrases, words
from training.examples import TOPICS, Example, random_row, some_fields, topic_tag
from training.grammar import pick
from training.opinions import KIDS_TAGS
from training.rows import Row


def _filter(
    task: str, asked: str, fields: Mapping[str, Any], answer: bool, row: Row, gist: str = "", wanted: str = ""
) -> Example:
    """A question whose end is tagged as a record would be that says what is `wanted`."""
    tags = (*row.tags, (asked, wanted)) if wanted else row.tags
    return Example(f"filter_{task}", "llm_filter", asked, fields, json.dumps(answer), tags=tags, gist=gist)


_OPINION_ASKED: dict[str, tuple[str, ...]] = {
    "positive": (
        "Is the review positive?", "Does the reviewer like it?", "Is the customer happy?",
        "Does the author recommend it?", "Is it a good review?", "Is the reviewer satisfied?",
        "Is this a favourable opinion?", "Did they enjoy it?", "Is the sentiment positive?",
        "Would the customer buy it again?", "Is the author enthusiastic?", "Is this praise?",
        "The reviewer is pleased.", "Does the review praise it?", "Does the critic like the film?",
        "Is the opinion good?",
        "Is the writer happy with it?", "Is it a positive review?", "Does the customer like the product?",
        "Is the review good?",
        "Does the text recommend it?", "Do they like it?", "Is it positive?", "Is {review} positive?",
    ),
    "negative": (
        "Is the review negative?", "Does the reviewer dislike it?", "Is the customer unhappy?",
        "Does the author advise against it?", "Is it a bad review?", "Is the reviewer dissatisfied?",
        "Is this an unfavourable opinion?", "Is the sentiment negative?", "The reviewer is disappointed.",
        "Is it negative?", "Is it a complaint?", "Does the customer complain?", "Is the author angry about it?",
        "Is this criticism?", "Does the review criticize it?", "Does the critic dislike the film?",
        "Is the opinion bad?",
        "Is the writer unhappy with it?", "Is it a negative review?", "Does the customer dislike the product?",
        "Is the review bad?",
        "Do they dislike it?", "Does the reviewer complain?",
    ),
}  # fmt: skip


def filter_sentiment(rng: random.Random, held_out: bool) -> Example:
    """Yes/no: is the opinion positive, is it negative."""
    row = random_row(rng, held_out, "review", "review", "film", "place", "critique", "critique")
    wanted = rng.choice(("positive", "negative"))
    asked = pick(rng, _OPINION_ASKED[wanted], held_out)
    fields = some_fields(rng, row, ("review",))
    if "{review}" in asked and "review" not in fields:
        asked = asked.replace("{review}", "the text")
    polarity = row.facts["polarity"]
    gist = f"polarity:{polarity}"
    return _filter("sentiment", asked, fields, polarity == wanted, row, gist, f"polarity:{wanted}")


_ASPECT_ASKED: dict[int, tuple[str, ...]] = {
    1: (
        "Does the review praise the {a}?", "Is the reviewer happy with the {a}?", "Is the {a} good?",
        "Do they like the {a}?", "Is something good said about the {a}?", "Does the author recommend the {a}?",
        "Was the {a} to their liking?", "Does the customer praise the {a}?", "Is the {a} praised?",
        "Is the reviewer pleased with the {a}?",
        "Does the reviewer like the {a}?", "Is the customer happy with the {a}?", "Do they praise the {a}?",
    ),
    -1: (
        "Does the review complain about the {a}?", "Is the reviewer unhappy with the {a}?", "Is the {a} bad?",
        "Do they dislike the {a}?", "Is there a problem with the {a}?", "Does the customer criticize the {a}?",
        "Was the {a} a disappointment?", "Does the customer complain about the {a}?", "Is the {a} criticized?",
        "Does the review criticize the {a}?", "Does the reviewer dislike the {a}?",
        "Is the customer unhappy with the {a}?",
        "Do they complain about the {a}?", "Does the reviewer complain about the {a}?",
    ),
    0: (
        "Is the {a} mentioned?", "Does the review mention the {a}?", "Does it say anything about the {a}?",
        "Is the {a} discussed?", "Does the reviewer mention the {a}?", "Does the text mention the {a}?",
        "Is something said about the {a}?",
        "Does it mention the {a}?",
    ),
}  # fmt: skip


def filter_aspect(rng: random.Random, held_out: bool) -> Example:
    """Yes/no: is an aspect praised, criticized or mentioned."""
    row = random_row(rng, held_out, "review", "review", "film", "place")
    signs, aspects = row.facts["aspects"], phrases.ASPECTS[row.facts["domain"]]
    name = rng.choice(sorted(signs)) if signs and rng.random() < 0.5 else rng.choice(sorted(aspects))
    wanted = rng.choice((1, 1, -1, -1, 0))
    asked = pick(rng, _ASPECT_ASKED[wanted], held_out)
    noun = rng.choice((name, rng.choice(aspects[name].nouns)))
    if noun.endswith("s"):
        asked = asked.replace("Is the {a}", "Are the {a}").replace("Was the {a}", "Were the {a}")
    asked = asked.replace("{a}", noun)
    found = signs.get(name, 0)
    gist = {1: f"{name}+", -1: f"{name}-", 0: "absent"}[found]
    answer = found == wanted if wanted else found != 0
    return _filter("aspect", asked, some_fields(rng, row, ("review",)), answer, row, gist, f"{name}{'?+-'[wanted]}")


_KIDS_ASKED: dict[bool, tuple[str, ...]] = {
    True: (
        "Is it suitable for kids?", "Is it suitable for children?", "Can children watch it?",
        "Is this for families?", "Is it fit for kids?", "Would you let a child have it?",
        "Is the movie suitable for kids?", "Is it child-friendly?", "Is it family-friendly?",
        "Is it made for children?",
        "Is it for kids?", "Is it good for children?", "Is the film for children?", "Should children see it?",
        "Is it safe for kids?",
        "Will kids like it?", "Can kids use it?", "Is it fit for the whole family?", "Does it suit children?",
        "Can I take my children?",
    ),
    False: (
        "Is it for adults only?", "Is it unsuitable for children?", "Should kids stay away from it?",
        "Is it only for grown-ups?", "Is it bad for children?", "Is it only for adults?",
        "Is it not suitable for kids?",
        "Is it dangerous for children?", "Should children not see it?", "Is it too much for kids?",
        "Is it not for children?",
    ),
}  # fmt: skip


def filter_audience(rng: random.Random, held_out: bool) -> Example:
    """Yes/no: does the record say that it is for children, or that it is for adults only."""
    row = random_row(rng, held_out, "film", "film", "review", "review", "place")
    while row.facts["kids"] is None and rng.random() < 0.7:
        row = random_row(rng, held_out, "film", "film", "review", "review", "place")
    wanted, kids = rng.random() < 0.7, row.facts["kids"]
    asked = pick(rng, _KIDS_ASKED[wanted], held_out)
    fields = some_fields(rng, row, ("review", "movieinfo", "description"))
    gist = "absent" if kids is None else KIDS_TAGS[bool(kids)]
    return _filter("audience", asked, fields, kids is wanted, row, gist, KIDS_TAGS[wanted])


_TONE_ASKED = {
    "angry": (
        "Is the customer angry?",
        "Is the message angry?",
        "Is the writer upset?",
        "Does the customer sound furious?",
        "Is the tone angry?",
        "Is the customer upset?",
        "Does the customer sound angry?",
        "Is it an angry message?",
        "Is the writer angry?",
        "Is the customer furious?",
    ),
    "polite": (
        "Is the message polite?",
        "Is the customer polite?",
        "Is the tone friendly?",
        "Does the writer stay courteous?",
        "Is the writer polite?",
        "Does the customer sound friendly?",
        "Is it a polite message?",
        "Is the customer friendly?",
        "Is the message friendly?",
    ),
}


_URGENT_ASKED = (
    "Is it urgent?",
    "Is the message urgent?",
    "Must it be answered today?",
    "Does the customer need help quickly?",
    "Is the request urgent?",
    "Is the ticket urgent?",
    "Does it need an answer today?",
    "Is the customer in a hurry?",
)


def filter_tone(rng: random.Random, held_out: bool) -> Example:
    """Yes/no: tone and urgency of a support message."""
    row = random_row(rng, held_out, "ticket")
    fields = some_fields(rng, row, ("message",))
    if rng.random() < 0.35:
        urgent = row.facts["urgent"]
        gist = "absent" if urgent is None else "urgent+" if urgent else "urgent-"
        return _filter("tone", pick(rng, _URGENT_ASKED, held_out), fields, urgent is True, row, gist, "urgent+")
    wanted = rng.choice(sorted(_TONE_ASKED))
    tone = row.facts["tone"]
    asked = pick(rng, _TONE_ASKED[wanted], held_out)
    return _filter("tone", asked, fields, tone == wanted, row, f"tone:{tone}", f"tone:{wanted}")


_TOPIC_ASKED = (
    "Is it about {t}?", "Is the text about {t}?", "Does it concern {t}?", "Is the topic {t}?",
    "Is {t} the subject?", "Does this belong to {t}?", "Is this about {t}?", "Is {t} the topic?",
    "Is the record about {t}?",
    "Is it a question of {t}?", "Does the text concern {t}?", "Does it belong to the category {t}?",
    "Is the category {t}?",
    "Is the message about {t}?", "Does it deal with {t}?", "Does the text deal with {t}?",
)  # fmt: skip


def filter_topic(rng: random.Random, held_out: bool) -> Example:
    """Yes/no: is a message, article or product of a topic."""
    kind = rng.choice(("ticket", "news", "review"))
    row = random_row(rng, held_out, kind)
    topics, fact, needed = TOPICS[kind]
    truth = str(row.facts[fact])
    topic = truth if rng.random() < 0.5 else rng.choice([t for t in topics if t != truth])
    asked = pick(rng, _TOPIC_ASKED, held_out).replace("{t}", topic)
    fields, gist = some_fields(rng, row, needed), topic_tag(kind, truth)
    return _filter("topic", asked, fields, topic == truth, row, gist, topic_tag(kind, topic))


def filter_fact(rng: random.Random, held_out: bool) -> Example:
    """Yes/no: what stands in a field (a year, a genre, a city, a kind of product)."""
    how = rng.choice(("year", "genre", "city", "thing"))
    if how == "year":
        row = random_row(rng, held_out, "film")
        bound, after = rng.randrange(1955, 2021, 5), rng.random() < 0.5
        word = (
            pick(rng, ("after", "later than"), held_out) if after else pick(rng, ("before", "earlier than"), held_out)
        )
        year = int(row.fields["year"])
        answer = year > bound if after else year < bound
        return _filter(
            "fact", f"Was the film released {word} {bound}?", some_fields(rng, row, ("title", "year")), answer, row
        )
    kind, key, values, asked = {
        "genre": ("film", "genre", phrases.GENRES, ("Is it a {v}?", "Is the genre {v}?")),
        "city": ("place", "city", words.CITIES, ("Is it in {v}?", "Is the place in {v}?", "Does it lie in {v}?")),
        "thing": ("review", "thing", words.PRODUCTS, ("Is it a {v}?", "Is the product a {v}?", "Is this about a {v}?")),
    }[how]
    row = random_row(rng, held_out, kind)
    truth = str(row.facts.get(key) or row.fields[key])
    others = words.PRODUCTS[str(row.facts["category"])] if how == "thing" else tuple(values)
    value = truth if rng.random() < 0.5 else rng.choice([o for o in others if o != truth])
    shown = {"genre": ("title", "genre"), "city": ("place", "city"), "thing": ("product", "review")}[how]
    return _filter(
        "fact", pick(rng, asked, held_out).replace("{v}", value), some_fields(rng, row, shown), value == truth, row
    )
