"""Questions about synthetic rows, each with its one right answer, in the grammar of the SQL functions."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from training import phrases, words
from training.grammar import pick, sentence
from training.rows import KINDS, Row, profile


@dataclass(frozen=True, slots=True)
class Example:
    """One question as a user would write it in SQL, and the answer text expected of the model.

    `instruction` is '' where the function's default is meant; `labels` belong to `llm_classify`, `returns` (DDL) to
    `llm_extract`; `fields` are in the order in which the model sees them.
    """

    task: str
    function: str
    instruction: str
    fields: Mapping[str, Any]
    answer: str
    labels: tuple[str, ...] = ()
    returns: str = ""
    system: str = ""


def _shuffled(rng: random.Random, fields: Mapping[str, Any]) -> dict[str, Any]:
    return dict(rng.sample(sorted(fields.items()), len(fields)))


def _some_fields(rng: random.Random, row: Row, needed: tuple[str, ...]) -> dict[str, Any]:
    """The needed fields and some others, in random order; text columns go by several names."""
    kept = {k: v for k, v in row.fields.items() if k in needed or rng.random() < 0.3}
    names = {
        "review": ("review", "review", "text", "review_text", "comment", "reviewcontent"),
        "message": ("message", "text", "body", "ticket"),
        "text": ("text", "article", "body"),
        "context": ("context", "text", "paragraph"),
    }
    if rng.random() < 0.1:
        kept["id"] = rng.randrange(1, 10000)
    return _shuffled(rng, {rng.choice(names.get(k, (k,))): v for k, v in kept.items()})


def _row(rng: random.Random, held_out: bool, *kinds: str) -> Row:
    return KINDS[rng.choice(kinds)](rng, held_out)


_LABELS: tuple[Mapping[str, str], ...] = tuple(
    dict(zip(("positive", "negative", "mixed", "neutral"), names, strict=True))
    for names in (
        ("positive", "negative", "mixed", "neutral"),
        ("positive", "negative", "mixed", "neutral"),
        ("positive", "negative", "mixed", "neutral"),
        ("good", "bad", "mixed", "neutral"),
        ("happy", "unhappy", "undecided", "no opinion"),
        ("satisfied", "dissatisfied", "mixed", "neutral"),
        ("praise", "complaint", "both", "neither"),
        ("POSITIVE", "NEGATIVE", "MIXED", "NEUTRAL"),
        ("fresh", "rotten", "mixed", "neutral"),
        ("like", "dislike", "mixed", "neutral"),
    )
)
_SENTIMENT_ASKED = (
    "", "", "", "What is the sentiment of the review?", "How does the reviewer feel?", "Classify the sentiment.",
    "Which sentiment does the text express?", "Is the opinion favourable?", "Sentiment of this review", "What does the writer think of it?",
    "Decide how the author judges it.", "Label the review.", "Tell the mood of the customer.",
)  # fmt: skip


def sentiment(rng: random.Random, held_out: bool) -> Example:
    """Two, three or four classes of opinion, by varying label words."""
    names = rng.choice(_LABELS)
    classes = rng.choice(
        (("positive", "negative"), ("positive", "negative", "mixed"), ("positive", "negative", "neutral"), tuple(names))
    )
    while (row := _row(rng, held_out, "review", "review", "film", "place")).facts["polarity"] not in classes:
        pass
    labels = tuple(names[c] for c in rng.sample(classes, len(classes)))
    asked = pick(rng, _SENTIMENT_ASKED, held_out)
    answer = names[str(row.facts["polarity"])]
    return Example(
        f"sentiment_{min(len(classes), 3)}", "llm_classify", asked, _some_fields(rng, row, ("review",)), answer, labels
    )


def _filter(task: str, asked: str, fields: Mapping[str, Any], answer: bool) -> Example:
    return Example(f"filter_{task}", "llm_filter", asked, fields, json.dumps(answer))


_OPINION_ASKED: dict[str, tuple[str, ...]] = {
    "positive": (
        "Is the review positive?", "Does the reviewer like it?", "Is the customer happy?", "Does the author recommend it?", "Is it a good review?",
        "Is the reviewer satisfied?", "Is this a favourable opinion?", "Did they enjoy it?", "Is the sentiment positive?",
        "The reviewer is pleased.", "Is it positive?", "Is {review} positive?",
    ),
    "negative": (
        "Is the review negative?", "Does the reviewer dislike it?", "Is the customer unhappy?", "Does the author advise against it?",
        "Is it a bad review?", "Is the reviewer dissatisfied?", "Is this an unfavourable opinion?", "Is the sentiment negative?",
        "The reviewer is disappointed.", "Is it negative?", "Is it a complaint?",
    ),
}  # fmt: skip


def filter_sentiment(rng: random.Random, held_out: bool) -> Example:
    """Yes/no: is the opinion positive, is it negative."""
    row = _row(rng, held_out, "review", "review", "film", "place")
    wanted = rng.choice(("positive", "negative"))
    asked = pick(rng, _OPINION_ASKED[wanted], held_out)
    fields = _some_fields(rng, row, ("review",))
    if "{review}" in asked and "review" not in fields:
        asked = asked.replace("{review}", "the text")
    return _filter("sentiment", asked, fields, row.facts["polarity"] == wanted)


_ASPECT_ASKED: dict[int, tuple[str, ...]] = {
    1: (
        "Does the review praise the {a}?", "Is the reviewer happy with the {a}?", "Is the {a} good?", "Do they like the {a}?",
        "Is something good said about the {a}?", "Does the author recommend the {a}?", "Was the {a} to their liking?",
    ),
    -1: (
        "Does the review complain about the {a}?", "Is the reviewer unhappy with the {a}?", "Is the {a} bad?", "Do they dislike the {a}?",
        "Is there a problem with the {a}?", "Does the customer criticize the {a}?", "Was the {a} a disappointment?",
    ),
    0: ("Is the {a} mentioned?", "Does the review mention the {a}?", "Does it say anything about the {a}?", "Is the {a} discussed?"),
}  # fmt: skip


def filter_aspect(rng: random.Random, held_out: bool) -> Example:
    """Yes/no: is an aspect praised, criticized or mentioned."""
    row = _row(rng, held_out, "review", "review", "film", "place")
    signs, aspects = row.facts["aspects"], phrases.ASPECTS[row.facts["domain"]]
    name = rng.choice(sorted(signs)) if signs and rng.random() < 0.75 else rng.choice(sorted(aspects))
    wanted = rng.choice((1, 1, -1, -1, 0))
    asked = pick(rng, _ASPECT_ASKED[wanted], held_out).replace(
        "{a}", rng.choice((name, rng.choice(aspects[name].nouns)))
    )
    found = signs.get(name, 0)
    return _filter("aspect", asked, _some_fields(rng, row, ("review",)), found == wanted if wanted else found != 0)


_KIDS_ASKED: dict[bool, tuple[str, ...]] = {
    True: (
        "Is it suitable for kids?", "Is it suitable for children?", "Can children watch it?", "Is this for families?", "Is it fit for kids?",
        "Would you let a child have it?", "Is the movie suitable for kids?", "Is it child-friendly?", "Is it family-friendly?",
        "Can I take my children?",
    ),
    False: (
        "Is it for adults only?", "Is it unsuitable for children?", "Should kids stay away from it?", "Is it only for grown-ups?",
        "Is it bad for children?",
    ),
}  # fmt: skip


def filter_audience(rng: random.Random, held_out: bool) -> Example:
    """Yes/no: is it for children, is it for adults only."""
    while (row := _row(rng, held_out, "film", "film", "review", "place")).facts["kids"] is None:
        pass
    wanted = rng.random() < 0.7
    asked = pick(rng, _KIDS_ASKED[wanted], held_out)
    return _filter("audience", asked, _some_fields(rng, row, ("review", "movieinfo")), row.facts["kids"] == wanted)


_TONE_ASKED = {
    "angry": (
        "Is the customer angry?",
        "Is the message angry?",
        "Is the writer upset?",
        "Does the customer sound furious?",
        "Is the tone angry?",
    ),
    "polite": (
        "Is the message polite?",
        "Is the customer polite?",
        "Is the tone friendly?",
        "Does the writer stay courteous?",
    ),
}
_URGENT_ASKED = (
    "Is it urgent?",
    "Is the message urgent?",
    "Must it be answered today?",
    "Does the customer need help quickly?",
)


def filter_tone(rng: random.Random, held_out: bool) -> Example:
    """Yes/no: tone and urgency of a support message."""
    row = _row(rng, held_out, "ticket")
    fields = _some_fields(rng, row, ("message",))
    if rng.random() < 0.35:
        return _filter("tone", pick(rng, _URGENT_ASKED, held_out), fields, row.facts["urgent"] is True)
    wanted = rng.choice(sorted(_TONE_ASKED))
    return _filter("tone", pick(rng, _TONE_ASKED[wanted], held_out), fields, row.facts["tone"] == wanted)


_TOPIC_ASKED = (
    "Is it about {t}?", "Is the text about {t}?", "Does it concern {t}?", "Is the topic {t}?", "Is {t} the subject?", "Does this belong to {t}?",
)  # fmt: skip


def filter_topic(rng: random.Random, held_out: bool) -> Example:
    """Yes/no: is a message, article or product of a topic."""
    kind = rng.choice(("ticket", "news", "review"))
    row = _row(rng, held_out, kind)
    topics, fact, needed = _TOPICS[kind]
    truth = str(row.facts[fact])
    topic = truth if rng.random() < 0.5 else rng.choice([t for t in topics if t != truth])
    asked = pick(rng, _TOPIC_ASKED, held_out).replace("{t}", topic)
    return _filter("topic", asked, _some_fields(rng, row, needed), topic == truth)


_TOPICS: dict[str, tuple[tuple[str, ...], str, tuple[str, ...]]] = {
    "ticket": (tuple(sorted(phrases.TICKET_TOPICS)), "topic", ("message",)),
    "news": (tuple(sorted(phrases.NEWS)), "topic", ("headline", "text")),
    "review": (tuple(sorted(words.PRODUCTS)), "category", ("product", "review")),
}


def filter_fact(rng: random.Random, held_out: bool) -> Example:
    """Yes/no: what stands in a field (a year, a genre, a city, a kind of product)."""
    how = rng.choice(("year", "genre", "city", "thing"))
    if how == "year":
        row = _row(rng, held_out, "film")
        bound, after = rng.randrange(1955, 2021, 5), rng.random() < 0.5
        word = (
            pick(rng, ("after", "later than"), held_out) if after else pick(rng, ("before", "earlier than"), held_out)
        )
        year = int(row.fields["year"])
        answer = year > bound if after else year < bound
        return _filter(
            "fact", f"Was the film released {word} {bound}?", _some_fields(rng, row, ("title", "year")), answer
        )
    kind, key, values, asked = {
        "genre": ("film", "genre", phrases.GENRES, ("Is it a {v}?", "Is the genre {v}?")),
        "city": ("place", "city", words.CITIES, ("Is it in {v}?", "Is the place in {v}?", "Does it lie in {v}?")),
        "thing": ("review", "thing", words.PRODUCTS, ("Is it a {v}?", "Is the product a {v}?", "Is this about a {v}?")),
    }[how]
    row = _row(rng, held_out, kind)
    truth = str(row.facts.get(key) or row.fields[key])
    others = words.PRODUCTS[str(row.facts["category"])] if how == "thing" else tuple(values)
    value = truth if rng.random() < 0.5 else rng.choice([o for o in others if o != truth])
    shown = {"genre": ("title", "genre"), "city": ("place", "city"), "thing": ("product", "review")}[how]
    return _filter(
        "fact", pick(rng, asked, held_out).replace("{v}", value), _some_fields(rng, row, shown), value == truth
    )


_CLASSIFY_ASKED = (
    "", "", "", "What is it about?", "Classify the topic.", "Which topic does the text have?", "Choose the category.", "Which team should handle it?",
    "Assign a category.", "Sort it into one of the groups.",
)  # fmt: skip


def topic(rng: random.Random, held_out: bool) -> Example:
    """A topic among labels that vary from prompt to prompt."""
    kind = rng.choice(("ticket", "ticket", "news", "news", "review"))
    row = _row(rng, held_out, kind)
    topics, fact, needed = _TOPICS[kind]
    truth = str(row.facts[fact])
    others = rng.sample([t for t in topics if t != truth], rng.choice((1, 2, 3, 4, 5)))
    labels = rng.sample([truth, *others], len(others) + 1)
    style = rng.choice((str, str, str, str.capitalize, str.upper))
    labels = [style(label) for label in labels]
    fields = _some_fields(rng, row, needed)
    return Example("topic", "llm_classify", pick(rng, _CLASSIFY_ASKED, held_out), fields, style(truth), tuple(labels))


def tone(rng: random.Random, held_out: bool) -> Example:
    """The tone of a support message."""
    row = _row(rng, held_out, "ticket")
    labels = tuple(rng.sample(("angry", "polite", "neutral"), 3))
    asked = pick(rng, ("", "What is the tone?", "How does the customer sound?", "Classify the tone."), held_out)
    return Example("tone", "llm_classify", asked, _some_fields(rng, row, ("message",)), str(row.facts["tone"]), labels)


_SCHEMAS: dict[str, dict[str, tuple[str, str, tuple[str, ...]]]] = {
    "profile": {
        "founder": ("STRING", "founder", ("context",)),
        "company": ("STRING", "name", ("context",)),
        "year": ("INT", "year", ("context",)),
        "city": ("STRING", "city", ("context",)),
        "product": ("STRING", "product", ("context",)),
        "employees": ("INT", "employees", ("context",)),
        "head": ("STRING", "head", ("context",)),
    },
    "ticket": {
        "topic": ("STRING", "topic", ("message",)),
        "tone": ("STRING", "tone", ("message",)),
        "urgent": ("BOOLEAN", "urgent", ("message",)),
    },
    "review": {
        "product": ("STRING", "product", ("product", "review")),
        "category": ("STRING", "category", ("product", "review")),
        "sentiment": ("STRING", "polarity", ("review",)),
        "stars": ("INT", "stars", ("review",)),
        "praised": ("STRING", "praised", ("review",)),
        "criticized": ("STRING", "criticized", ("review",)),
    },
    "place": {
        "place": ("STRING", "place", ("place", "review")),
        "city": ("STRING", "city", ("city", "review")),
        "sentiment": ("STRING", "polarity", ("review",)),
        "praised": ("STRING", "praised", ("review",)),
        "criticized": ("STRING", "criticized", ("review",)),
    },
    "film": {
        "title": ("STRING", "title", ("title",)),
        "sentiment": ("STRING", "polarity", ("review",)),
        "praised": ("STRING", "praised", ("review",)),
        "criticized": ("STRING", "criticized", ("review",)),
    },
}


def _known(row: Row) -> dict[str, Any]:
    """The row's facts with the first praised and the first criticized aspect, and numbers as numbers."""
    known = {k: int(v) if isinstance(v, str) and v.isdigit() else v for k, v in row.facts.items()}
    if "urgent" in known:
        known["urgent"] = known["urgent"] is True
    for key, sign in (("praised", 1), ("criticized", -1)):
        known[key] = next((a for a, s in row.facts.get("aspects", {}).items() if s == sign), None)
    return known


def extract(rng: random.Random, held_out: bool) -> Example:
    """Named values of a row as JSON; a value that the row does not tell is null."""
    kind = rng.choice(("profile", "profile", "review", "review", "place", "film", "ticket"))
    row = _row(rng, held_out, kind)
    known = _known(row)
    told = [k for k, (_, fact, _) in _SCHEMAS[kind].items() if known.get(fact) is not None or rng.random() < 0.25]
    columns = rng.sample(told, min(len(told), rng.choice((1, 2, 2, 3, 3))))
    chosen = {c: _SCHEMAS[kind][c] for c in columns}
    answer = {c: known.get(fact) for c, (_, fact, _) in chosen.items()}
    returns = ", ".join(f"{c} {sql_type}" for c, (sql_type, _, _) in chosen.items())
    needed = tuple(f for _, _, fields in chosen.values() for f in fields)
    text = json.dumps(answer, ensure_ascii=False, separators=(",", ":"))
    return Example(f"extract_{kind}", "llm_extract", "", _some_fields(rng, row, needed), text, returns=returns)


_RATING_ASKED = (
    "Rate the review from 1 to 5.", "How many stars from 1 to 5 does the reviewer give?", "Guess the stars (1-5).", "Rating from 1 (bad) to 5 (good)?",
    "On a scale of 1 to 5, how happy is the customer?", "Give a score from 1 to 5.",
)  # fmt: skip


def rating(rng: random.Random, held_out: bool) -> Example:
    """Stars from 1 to 5."""
    row = _row(rng, held_out, "review", "review", "film", "place")
    asked, answer = pick(rng, _RATING_ASKED, held_out), str(row.facts["stars"])
    fields = _some_fields(rng, row, ("review",))
    if rng.random() < 0.5:
        return Example("rating", "llm_classify", asked, fields, answer, tuple("12345"))
    return Example("rating", "llm", asked, fields, answer, returns="INT")


_QUESTIONS: dict[str, tuple[str, ...]] = {
    "founder": ("Who founded {name}?", "Who started {name}?", "Who is the founder of {name}?"),
    "year": ("When was {name} founded?", "In which year was {name} started?", "What year did {name} begin?"),
    "city": ("Where is {name} based?", "In which city is {name}?", "Where is the head office of {name}?"),
    "product": ("What does {name} make?", "What does {name} sell?", "Which product is {name} known for?"),
    "employees": ("How many people work for {name}?", "How many employees does {name} have?"),
    "head": ("Who leads {name}?", "Who runs {name}?", "Who is the head of {name}?"),
}
_ANSWER_ASKED = (
    "Answer the question.", "Answer the question", "Answer the question from the contexts.", "Give a short answer to the question.",
    "Use the text to answer the question.", "Reply with the words of the text.",
)  # fmt: skip


def answer(rng: random.Random, held_out: bool) -> Example:
    """A short answer copied from one context or from one of several."""
    rows = [profile(rng, held_out) for _ in range(rng.choice((1, 1, 2, 3)))]
    row = rng.choice(rows)
    asked = rng.choice([k for k in _QUESTIONS if k in row.facts])
    question = pick(rng, _QUESTIONS[asked], held_out).replace("{name}", str(row.facts["name"]))
    reply = str(row.facts[asked]) + ("s" if asked == "product" else "")
    texts = [str(r.fields["context"]) for r in rows]
    fields = (
        {"contexts": texts} if len(texts) > 1 or rng.random() < 0.3 else {rng.choice(("context", "text")): texts[0]}
    )
    if rng.random() < 0.3:
        return Example("answer", "llm", question, fields, reply)
    return Example(
        "answer", "llm", pick(rng, _ANSWER_ASKED, held_out), _shuffled(rng, {"question": question, **fields}), reply
    )


def _listed(names: list[str]) -> str:
    *most, last = [f"the {name}" for name in names]
    return f"{', '.join(most)} and {last}" if most else last


_SUMMARY_ASKED = {
    "all": (
        "Summarize the review in one sentence.",
        "Summarize the review",
        "Summarize in one sentence.",
        "Give a one-sentence summary.",
        "Summarize the text.",
    ),
    "good": ("Summarize the good qualities", "What is praised?", "List the strengths.", "What does the reviewer like?"),
    "bad": (
        "Summarize the bad qualities",
        "What is criticized?",
        "List the weaknesses.",
        "What does the reviewer dislike?",
    ),
}


def summary(rng: random.Random, held_out: bool) -> Example:
    """One sentence: the kind of review and what it praises and criticizes."""
    row = _row(rng, held_out, "review", "review", "film", "place")
    signs = row.facts["aspects"]
    good, bad = ([a for a, s in signs.items() if s == sign] for sign in (1, -1))
    parts = [f"{verb} {_listed(named)}" for verb, named in (("praises", good), ("criticizes", bad)) if named]
    whole = f"A {row.facts['polarity']} review" + (" that " + " and ".join(parts) if parts else "") + "."
    side = rng.choice(("all", "all", "good", "bad"))
    named = {"good": good, "bad": bad}.get(side)
    reply = whole if named is None else (sentence(_listed(named)) if named else "None are mentioned.")
    return Example(
        "summary", "llm", pick(rng, _SUMMARY_ASKED[side], held_out), _some_fields(rng, row, ("review",)), reply
    )


TASKS: dict[Callable[[random.Random, bool], Example], float] = {
    sentiment: 0.18,
    filter_sentiment: 0.10,
    filter_aspect: 0.11,
    filter_audience: 0.07,
    filter_tone: 0.04,
    filter_topic: 0.06,
    filter_fact: 0.04,
    topic: 0.12,
    tone: 0.02,
    extract: 0.12,
    rating: 0.03,
    answer: 0.06,
    summary: 0.05,
}
"""Every task with its share of the training examples."""


_SYSTEM = (
    "You are a helpful assistant.",
    "You read tables.",
    "You are a careful analyst.",
    "Be brief.",
    "You work for a shop.",
)


def example(rng: random.Random, held_out: bool) -> Example:
    """Draw one example of a random task."""
    task = rng.choices(list(TASKS), weights=list(TASKS.values()))[0]
    drawn = task(rng, held_out)
    return replace(drawn, system=rng.choice(_SYSTEM)) if rng.random() < 0.03 else drawn
