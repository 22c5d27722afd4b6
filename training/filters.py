"""Yes/no questions about sentiment, aspects, audience, tone, topic and facts."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from training import phrases, words
from training.examples import TOPICS, Example, random_row, some_fields, topic_tag
from training.grammar import pick, variants
from training.opinions import KIDS_TAGS
from training.rows import Row


def _filter(
    task: str, asked: str, fields: Mapping[str, Any], answer: bool, row: Row, gist: str = "", wanted: str = ""
) -> Example:
    """A question whose end is tagged as a record would be that says what is `wanted`."""
    tags = (*row.tags, (asked, wanted)) if wanted else row.tags
    return Example(f"filter_{task}", "llm_filter", asked, fields, json.dumps(answer), tags=tags, gist=gist)


_AUTHOR = "[reviewer|customer|author|writer|critic]"
_OPINION_ASKED: dict[str, tuple[str, ...]] = {
    "positive": variants(
        f"Is the {_AUTHOR} [happy|satisfied|pleased|enthusiastic]?", f"Is the {_AUTHOR} happy with it?",
        f"Does the {_AUTHOR} [like|recommend|praise|enjoy] it?", "The [reviewer|customer] is [pleased|happy].",
        "Is the [review|opinion|sentiment|text|verdict] [positive|favourable|good]?",
        "Is [it|this] a [positive|good|favourable] [review|opinion|verdict]?", "Is [it|this] [positive|praise]?",
        "Does the [review|text] [recommend|praise] it?", "Did they [like|enjoy] it?", "Do they [like|enjoy] it?",
        "Would the [customer|reviewer] buy it again?", "Does the critic like the film?",
        "Does the customer like the product?", "Is {review} [positive|favourable|good|praise]?",
        "Does {review} [praise|recommend] it?",
    ),
    "negative": variants(
        f"Is the {_AUTHOR} [unhappy|dissatisfied|disappointed|angry]?", f"Is the {_AUTHOR} unhappy with it?",
        f"Does the {_AUTHOR} [dislike|criticize] it?", f"Does the {_AUTHOR} [complain|advise against it]?",
        "The [reviewer|customer] is [disappointed|unhappy].",
        "Is the [review|opinion|sentiment|text|verdict] [negative|unfavourable|bad]?",
        "Is [it|this] [a negative|a bad|an unfavourable] [review|opinion|verdict]?",
        "Is [it|this] [negative|criticism|a complaint]?", "Does the [review|text] [complain|criticize it]?",
        "Did they [dislike|hate] it?", "Do they [dislike|hate] it?", "Does the critic dislike the film?",
        "Does the customer dislike the product?", "Is {review} [negative|unfavourable|bad|a complaint]?",
        "Does {review} [complain|criticize it]?",
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


_IT = "[it|this|the film|the product]"
_KIDS_ASKED: dict[bool, tuple[str, ...]] = {
    True: variants(
        f"Is {_IT} [suitable|fit|good|safe|made] for [kids|children]?", f"Is {_IT} for [kids|children|families]?",
        "Is [it|this] [child-friendly|family-friendly]?", "[Can|Should] [kids|children] [watch|see|use] it?",
        "Will [kids|children] like it?", "Does it suit [kids|children|families]?", "Can I take my [kids|children]?",
        "Would you let a child have it?", "Is it fit for the whole family?", "Is it good for the whole family?",
    ),
    False: variants(
        f"Is {_IT} [for adults only|only for adults|only for grown-ups]?", f"Is {_IT} for grown-ups only?",
        f"Is {_IT} [unsuitable|bad|dangerous] for [kids|children]?", "Is it too much for [kids|children]?",
        "Is [it|this] not [suitable|fit|safe|good|made] for [kids|children]?", "Is [it|this] not for [kids|children]?",
        "Should [kids|children] [stay away from|not see|not watch|not use] it?",
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


_SENDER = "[customer|writer|sender]"
_TONE_ASKED = {
    "angry": variants(
        f"Is the {_SENDER} [angry|upset|furious]?", f"Does the {_SENDER} sound [angry|upset|furious]?",
        "Is [the message|the tone|it] [angry|furious]?", "Is it an angry [message|ticket]?",
    ),
    "polite": variants(
        f"Is the {_SENDER} [polite|friendly|courteous]?", f"Does the {_SENDER} sound [polite|friendly|courteous]?",
        "Is [the message|the tone|it] [polite|friendly]?", "Is it a [polite|friendly] [message|ticket]?",
    ),
}  # fmt: skip
_URGENT_ASKED = variants(
    "Is [it|the message|the request|the ticket] urgent?", "Must it be answered [today|quickly|at once]?",
    "Does the [customer|writer] need [help|an answer] [quickly|today|at once]?", "Does it need an answer today?",
    "Is the [customer|writer] in a hurry?",
)  # fmt: skip


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


_FACTS: dict[str, tuple[str, str, tuple[str, ...], tuple[str, ...]]] = {
    "genre": (
        "film", "genre", ("title", "genre"),
        variants("Is [it|this|the film] a {v}?", "Is the genre [of the film |]{v}?", "Is {v} the genre?"),
    ),
    "city": (
        "place", "city", ("place", "city"),
        variants("Is [it|this|the place] in {v}?", "Does [it|the place] lie in {v}?", "Is the city {v}?",
                 "Is {v} the city?", "Is [it|the place] [located|to be found] in {v}?"),
    ),
    "thing": (
        "review", "thing", ("product", "review"),
        variants("Is [it|this|the product] a {v}?",
                 "Is [it|this|the review] about a {v}?", "Did they [buy|order] a {v}?"),
    ),
}  # fmt: skip
"""Facts by the kind of their rows, the field or fact that tells them, the fields shown, and questions."""

_YEAR_ASKED = variants(
    "Was [the film|it] [released|made|shown] [after|later than|before|earlier than] {v}?",
    "Is the [film|year] [later than|earlier than|after|before] {v}?",
    "Is it [from before|from after|older than|newer than] {v}?",
)


def filter_fact(rng: random.Random, held_out: bool) -> Example:
    """Yes/no: what stands in a field (a year, a genre, a city, a kind of product)."""
    how = rng.choice(("year", *_FACTS))
    if how == "year":
        row = random_row(rng, held_out, "film")
        year, bound = int(row.fields["year"]), rng.randrange(1955, 2021, 5)
        asked = pick(rng, _YEAR_ASKED, held_out).replace("{v}", str(bound))
        later = any(word in asked for word in ("after", "later", "newer"))
        fields, answer = some_fields(rng, row, ("title", "year")), year > bound if later else year < bound
        truth, wanted = year // 5 * 5, bound
    else:
        kind, key, shown, questions = _FACTS[how]
        row = random_row(rng, held_out, kind)
        truth = str(row.facts.get(key) or row.fields[key])
        values = {"genre": phrases.GENRES, "city": words.CITIES}.get(how) or words.PRODUCTS[str(row.facts["category"])]
        wanted = truth if rng.random() < 0.5 else rng.choice([v for v in values if v != truth])
        fields, answer = some_fields(rng, row, shown), wanted == truth
        article = "" if wanted.endswith("s") else "an " if wanted[0] in "aeiou" else "a "
        asked = pick(rng, questions, held_out).replace("a {v}", article + wanted).replace("{v}", wanted)
    told = (str(row.fields["year"]) if how == "year" else truth, f"{how}:{truth}")
    tags = (*(tag for tag in row.tags if tag[0] != told[0]), told)
    return _filter("fact", asked, fields, answer, replace(row, tags=tags), told[1], f"{how}:{wanted}")
