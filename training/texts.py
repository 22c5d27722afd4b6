"""Answers in words or JSON: extraction, short answers from contexts, one-sentence summaries."""

from __future__ import annotations

import json
import random
from typing import Any

from training import phrases
from training.examples import Example, random_row, shuffled, some_fields
from training.grammar import pick, sentence
from training.kinds import profile
from training.lexicon import ADJECTIVES, DOES, VICES, VIRTUES
from training.rows import Row, person
from training.words import CITIES, COLOURS, MONTHS, invented_name, words

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
        "pros": ("ARRAY<STRING>", "pros", ("review",)),
        "cons": ("ARRAY<STRING>", "cons", ("review",)),
    },
    "place": {
        "place": ("STRING", "place", ("place", "review")),
        "city": ("STRING", "city", ("city", "review")),
        "sentiment": ("STRING", "polarity", ("review",)),
        "praised": ("STRING", "praised", ("review",)),
        "criticized": ("STRING", "criticized", ("review",)),
        "pros": ("ARRAY<STRING>", "pros", ("review",)),
        "cons": ("ARRAY<STRING>", "cons", ("review",)),
    },
    "film": {
        "title": ("STRING", "title", ("title",)),
        "sentiment": ("STRING", "polarity", ("review",)),
        "praised": ("STRING", "praised", ("review",)),
        "criticized": ("STRING", "criticized", ("review",)),
        "pros": ("ARRAY<STRING>", "pros", ("review",)),
        "cons": ("ARRAY<STRING>", "cons", ("review",)),
    },
}


def _known(row: Row) -> dict[str, Any]:
    """The row's facts with the first praised and the first criticized aspect, and numbers as numbers."""
    known = {k: int(v) if isinstance(v, str) and v.isdigit() else v for k, v in row.facts.items()}
    if "urgent" in known:
        known["urgent"] = known["urgent"] is True
    for one, all_of, sign in (("praised", "pros", 1), ("criticized", "cons", -1)):
        known[all_of] = [a for a, s in row.facts.get("aspects", {}).items() if s == sign]
        known[one] = next(iter(known[all_of]), None)
    return known


def extract(rng: random.Random, held_out: bool) -> Example:
    """Named values of a row as JSON; a value that the row does not tell is null."""
    kind = rng.choice(("profile", "profile", "review", "review", "place", "film", "ticket"))
    row = random_row(rng, held_out, kind)
    known = _known(row)
    told = [k for k, (_, fact, _) in _SCHEMAS[kind].items() if known.get(fact) is not None or rng.random() < 0.25]
    columns = rng.sample(told, min(len(told), rng.choice((1, 2, 2, 3, 3))))
    chosen = {c: _SCHEMAS[kind][c] for c in columns}
    answer = {c: known.get(fact) for c, (_, fact, _) in chosen.items()}
    returns = ", ".join(f"{c} {sql_type}" for c, (sql_type, _, _) in chosen.items())
    needed = tuple(f for _, _, fields in chosen.values() for f in fields)
    text = json.dumps(answer, ensure_ascii=False)
    return Example(
        f"extract_{kind}", "llm_extract", "", some_fields(rng, row, needed), text, returns=returns, tags=row.tags
    )


_QUESTIONS: dict[str, tuple[str, ...]] = {
    "founder": ("Who founded {name}?", "Who started {name}?", "Who is the founder of {name}?"),
    "year": ("When was {name} founded?", "In which year was {name} started?", "What year did {name} begin?"),
    "city": ("Where is {name} based?", "In which city is {name}?", "Where is the head office of {name}?"),
    "product": ("What does {name} make?", "What does {name} sell?", "Which product is {name} known for?"),
    "employees": ("How many people work for {name}?", "How many employees does {name} have?"),
    "head": ("Who leads {name}?", "Who runs {name}?", "Who is the head of {name}?"),
}


def questions_about(rng: random.Random, company: Row) -> list[tuple[str, str]]:
    """Every question that a company's text answers, with the answer."""
    name = str(company.facts["name"])
    asked = [key for key in _QUESTIONS if key in company.facts]
    return [(pick(rng, _QUESTIONS[key], False).replace("{name}", name), str(company.facts[key])) for key in asked]


_ANSWER_ASKED = (
    "Answer the question.", "Answer the question", "Answer the question from the contexts.",
    "Give a short answer to the question.", "Use the text to answer the question.",
    "Reply with the words of the text.",
)  # fmt: skip


def answer(rng: random.Random, held_out: bool) -> Example:
    """A short answer copied from one context or from one of several."""
    rows = [profile(rng, held_out) for _ in range(rng.choice((1, 1, 2, 3)))]
    row = rng.choice(rows)
    asked = rng.choice([k for k in _QUESTIONS if k in row.facts])
    question = pick(rng, _QUESTIONS[asked], held_out).replace("{name}", str(row.facts["name"]))
    reply = str(row.facts[asked])
    texts = [str(r.fields["context"]) for r in rows]
    fields = (
        {"contexts": texts} if len(texts) > 1 or rng.random() < 0.3 else {rng.choice(("context", "text")): texts[0]}
    )
    if rng.random() < 0.3:
        return Example("answer", "llm", question, fields, reply, tags=row.tags, gist=f"profile:{asked}")
    fields = shuffled(rng, {"question": question, **fields})
    return Example(
        "answer", "llm", pick(rng, _ANSWER_ASKED, held_out), fields, reply, tags=row.tags, gist=f"profile:{asked}"
    )


_REPEAT_ASKED = (
    "Repeat the {name}.", "Copy the {name}.", "What is the {name}?", "Give the {name} word for word.",
    "Which {name} is it?",
    "Name the {name}.", "Tell me the {name}.", "Write the {name}.", "Return the {name}.", "Give the {name}.",
)  # fmt: skip
_NAMES = words(
    "name, city, code, author, owner, title, brand, model, colour, artist, country, street, street_name, contact, "
    "manager, driver, "
    "guest, player, seller, buyer, reference, label, serial, team, month, word, answer, director, studio, language"
)


def _value(rng: random.Random, held_out: bool) -> str:
    """Any short text: a person, a name, a number, a code, or random words."""
    how = rng.randrange(5)
    if how == 0:
        return person(rng, held_out)
    if how == 1:
        return " ".join(invented_name(rng, held_out) for _ in range(rng.choice((1, 1, 2))))
    if how == 2:
        return str(rng.randrange(10 ** rng.choice((2, 3, 4, 6))))
    if how == 3:
        return f"{rng.choice('ABCDEFGHKLMNPRSTVWXZ')}{rng.choice('ABCDEFGHKLMNPRSTVWXZ')}-{rng.randrange(1000)}"
    kinds = (VIRTUES, VICES, CITIES, COLOURS, MONTHS, phrases.DISHES, DOES[1], DOES[-1], ADJECTIVES[1], ADJECTIVES[-1])
    return " ".join(rng.choice(rng.choice(kinds)) for _ in range(rng.choice((1, 2, 3))))


def recall(rng: random.Random, held_out: bool) -> Example:
    """The value of one of several fields that have nothing to do with each other: what copying needs first."""
    fields = {name: _value(rng, held_out) for name in rng.sample(_NAMES, rng.choice((1, 2, 2, 3, 4)))}
    chosen = rng.sample(sorted(fields), min(len(fields), rng.choice((1, 1, 2))))
    if rng.random() < 0.4:
        answer = json.dumps({name: fields[name] for name in chosen}, ensure_ascii=False)
        returns = ", ".join(f"{name} STRING" for name in chosen)
        return Example("recall", "llm_extract", "", fields, answer, returns=returns)
    asked = pick(rng, _REPEAT_ASKED, held_out).replace("{name}", chosen[0])
    return Example("recall", "llm", asked, fields, fields[chosen[0]])


def repeat(rng: random.Random, held_out: bool) -> Example:
    """A field's text, word for word: the simplest form of an answer copied from the record."""
    row = random_row(rng, held_out, "review", "film", "place", "ticket", "news", "profile")
    name = rng.choice([name for name, value in row.fields.items() if isinstance(value, str)])
    fields = shuffled(rng, {k: v for k, v in row.fields.items() if k == name or rng.random() < 0.3})
    asked = pick(rng, _REPEAT_ASKED, held_out).replace("{name}", name)
    return Example("repeat", "llm", asked, fields, str(row.fields[name]), tags=row.tags)


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
    row = random_row(rng, held_out, "review", "review", "film", "place")
    signs = row.facts["aspects"]
    good, bad = ([a for a, s in signs.items() if s == sign] for sign in (1, -1))
    parts = [f"{verb} {_listed(named)}" for verb, named in (("praises", good), ("criticizes", bad)) if named]
    whole = f"A {row.facts['polarity']} review" + (" that " + " and ".join(parts) if parts else "") + "."
    side = rng.choice(("all", "all", "good", "bad"))
    named = {"good": good, "bad": bad}.get(side)
    reply = whole if named is None else (sentence(_listed(named)) if named else "None are mentioned.")
    fields = some_fields(rng, row, ("review",))
    return Example("summary", "llm", pick(rng, _SUMMARY_ASKED[side], held_out), fields, reply, tags=row.tags)
