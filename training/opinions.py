"""Review texts from opinions about aspects: praise, blame, negation, contrast and noise."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from training import phrases, words
from training.grammar import expand, pick, sentence
from training.rows import Tags, common_slots

KIDS_TAGS = {True: "kids+", False: "kids-"}

_JUDGED = (
    "the {noun} is {adjective}", "the {noun} was {adjective}", "{adjective} {noun}",
    "I find the {noun} {adjective}", "{very} {adjective} {noun}", "such {adjective} {noun}",
    "the {noun} is {very} {adjective}", "the {noun} turned out {adjective}", "its {noun} is {adjective}",
    "in my opinion the {noun} is {adjective}", "I thought the {noun} was {adjective}",
)  # fmt: skip
_JUDGED_AFTER = tuple(form for form in _JUDGED if "{adjective} {noun}" not in form)
_DENIED = (
    "the {noun} is not {adjective}", "the {noun} is anything but {adjective}",
    "I would not call the {noun} {adjective}", "the {noun} was not {adjective} at all",
    "nobody could call the {noun} {adjective}", "the {noun} is far from {adjective}",
    "the {noun} is never {adjective}", "there is nothing {adjective} about the {noun}",
)  # fmt: skip
_FELT: dict[int, tuple[str, ...]] = {
    2: (
        "I loved the {noun}", "I was blown away by the {noun}", "the {noun} impressed me deeply", "I adore the {noun}",
        "nothing beats the {noun}", "the {noun} is the best part", "full marks for the {noun}",
    ),
    1: (
        "I liked the {noun}", "the {noun} works well", "I enjoyed the {noun}", "no complaints about the {noun}",
        "I am happy with the {noun}", "the {noun} did not disappoint", "the {noun} is better than I thought",
        "a plus is the {noun}",
    ),
    -1: (
        "I did not like the {noun}", "the {noun} could be better", "I was let down by the {noun}",
        "the {noun} needs work", "I am not happy with the {noun}", "there are problems with the {noun}",
        "a minus is the {noun}", "the {noun} disappointed me",
    ),
    -2: (
        "I hated the {noun}", "the {noun} ruined everything", "the {noun} makes me angry",
        "the {noun} is the worst part", "I cannot stand the {noun}", "shame about the {noun}",
        "what were they thinking with the {noun}",
    ),
}  # fmt: skip
_CONTRAST = (
    "{first}, but {second}", "although {first}, {second}", "{first}; however, {second}", "{first}, yet {second}",
    "while {first}, {second}", "{first}. On the other hand, {second}", "even though {first}, {second}",
    "{first}. Still, {second}", "despite that {first}, {second}",
)  # fmt: skip

_ADJECTIVES = {2: words.GREAT, 1: words.GOOD, -1: words.BAD, -2: words.AWFUL}


def agree(text: str, noun: str) -> str:
    """Make the verb beside a plural noun plural.

    >>> agree("the jokes is good", "jokes")
    'the jokes are good'
    """
    if not noun.endswith("s"):
        return text
    for one, many in (("is", "are"), ("was", "were"), ("needs", "need"), ("works", "work"), ("makes", "make")):
        text = text.replace(f"{noun} {one} ", f"{noun} {many} ")
    return text


def opinion(
    rng: random.Random, aspect: phrases.Aspect, strength: int, slots: Mapping[str, str], held_out: bool
) -> tuple[str, int]:
    """A clause that praises (`strength` 1 or 2) or blames (-1 or -2) an aspect, and the strength that its words show.

    A fact or a negation shows no more than a sign.
    """
    how, sign = rng.random(), 1 if strength > 0 else -1
    if how < 0.27:
        return expand(rng, rng.choice(aspect.praise if strength > 0 else aspect.blame), slots), sign
    inner = {"noun": rng.choice(aspect.nouns), "very": words.VERY}
    if how < 0.38:
        denied = {**inner, "adjective": rng.choice(_ADJECTIVES[-sign])}
        return agree(expand(rng, pick(rng, _DENIED, held_out), denied), inner["noun"]), sign
    if how < 0.6:
        return agree(expand(rng, pick(rng, _FELT[strength], held_out), inner), inner["noun"]), strength
    adjective = rng.choice(_ADJECTIVES[strength])
    forms = _JUDGED_AFTER if " " in adjective else _JUDGED
    return agree(expand(rng, pick(rng, forms, held_out), {**inner, "adjective": adjective}), inner["noun"]), strength


def noise(rng: random.Random, text: str) -> str:
    """Sometimes write as people do: lower case, exclamation marks, in a longer text two letters swapped."""
    how = rng.random()
    if how < 0.12:
        return text.lower()
    if how < 0.17:
        return text.replace(".", "!")
    if how < 0.2 and len(text) > 60:
        i = rng.randrange(2, len(text) - 3)
        return text[:i] + text[i + 1] + text[i] + text[i + 2 :] if text[i : i + 2].isalpha() else text
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


def _stars(verdict: int, shown: list[int]) -> int:
    """The verdict decides; without one, the strongest word; praise and blame without a verdict are three stars."""
    least, most = (verdict, verdict) if verdict else (min(shown, default=0), max(shown, default=0))
    return 3 + (most if least >= 0 else least if most <= 0 else 0)


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
class Subject:
    """What a review is about: its domain, the thing, and the aspects it can have."""

    domain: str
    thing: str
    aspects: tuple[str, ...]


def review(
    rng: random.Random, subject: Subject, held_out: bool, kids: bool | None
) -> tuple[str, dict[str, object], Tags]:
    """A review text, its facts and its tagged phrases."""
    slots = {**common_slots(rng, held_out), "thing": subject.thing}
    polarity = rng.choice(("positive", "positive", "negative", "negative", "mixed", "neutral"))
    count = {"neutral": 0, "mixed": rng.choice((2, 2, 3))}.get(polarity, rng.choice((0, 1, 1, 2, 2, 3)))
    names = rng.sample(subject.aspects, count)
    verdict, strengths = _strengths(rng, polarity, count)
    aspects = phrases.ASPECTS[subject.domain]
    said_of = [opinion(rng, aspects[n], s, slots, held_out) for n, s in zip(names, strengths, strict=True)]
    clauses, shown = [text for text, _ in said_of], [strength for _, strength in said_of]
    tags = [(c, f"{n}{'+' if s > 0 else '-'}") for c, n, s in zip(clauses, names, strengths, strict=True)]
    texts = _joined(rng, clauses, strengths, held_out)
    if verdict:
        said = expand(rng, rng.choice(phrases.VERDICTS[verdict]), slots)
        texts.insert(rng.choice((0, len(texts))), sentence(said))
        tags.append((said, f"verdict{verdict:+}"))
    if polarity == "neutral" or rng.random() < 0.35:
        said = expand(rng, pick(rng, phrases.NEUTRAL[subject.domain], held_out), slots)
        texts.insert(0, sentence(said))
        tags.append((said, "neutral"))
    if kids is not None:
        suits = (phrases.FOR_KIDS if kids else phrases.NOT_FOR_KIDS)[subject.domain]
        at = rng.randrange(len(texts) + 1)
        said = expand(rng, pick(rng, suits, held_out), slots)
        texts.insert(at, sentence(said))
        tags.append((said, KIDS_TAGS[kids]))
    signs = {n: 1 if s > 0 else -1 for n, s in zip(names, strengths, strict=True)}
    facts = {"polarity": polarity, "stars": _stars(verdict, shown), "aspects": signs, "kids": kids}
    return noise(rng, " ".join(texts)), {**facts, "domain": subject.domain}, tuple(tags)
