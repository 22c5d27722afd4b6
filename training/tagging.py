"""Where the tagged phrases of a record end in its prompt, and the numbers of their tags.

Answers are one word for sixty of prompt: too little to learn from in an hour on a CPU. So training also asks a layer
inside the model, through a head of its own that is then dropped, what each phrase says.
"""

from __future__ import annotations

from tokenizers import Encoding

from training import phrases, topics, words
from training.examples import Example

TAGS = (
    "neutral",
    *(f"{part}{sign}" for part in ("word", "clause") for sign in "+-"),
    *(f"verdict{strength:+}" for strength in phrases.VERDICTS),
    *(f"{name}{sign}" for name in sorted({"kids", "urgent"}.union(*phrases.ASPECTS.values())) for sign in "+-?"),
    *(f"ticket:{topic}" for topic in topics.TICKETS),
    *(f"tone:{tone}" for tone in topics.TONES),
    *(f"news:{topic}" for topic in topics.NEWS),
    *(f"category:{category}" for category in words.PRODUCTS),
    *(f"profile:{fact}" for fact in ("founder", "year", "city", "product", "employees", "head")),
    *(f"polarity:{polarity}" for polarity in ("positive", "negative", "mixed", "neutral")),
    *(f"city:{city}" for city in words.CITIES),
    *(f"genre:{genre}" for genre in phrases.GENRES),
    *(f"thing:{thing}" for things in words.PRODUCTS.values() for thing in things),
    *(f"year:{year}" for year in range(1950, 2026, 5)),
    "absent",
)
_NUMBERS = {tag: number for number, tag in enumerate(TAGS)}


def tag_places(prompt: str, encoded: Encoding, asked: Example) -> list[tuple[int, int]]:
    """Token position and tag number for every label and tagged phrase that the prompt shows, and for the gist.

    A label is where the prompt first names it, a phrase where it stands last. The gist stands at the prompt's last
    token, which predicts the answer.
    """
    text = prompt.lower()
    ends = {end: position for position, (_, end) in enumerate(encoded.offsets)}
    found = [(len(encoded.ids) - 1, _NUMBERS[asked.gist])] if asked.gist else []
    labels = ((text.find, label, tag) for label, tag in zip(asked.labels, asked.label_tags, strict=False))
    said = ((text.rfind, phrase.rstrip(".!?"), tag) for phrase, tag in asked.tags)
    for where, name, tag in (*labels, *said):
        at = where(name.lower())
        position = ends.get(at + len(name)) if at >= 0 else None
        if position is not None:
            found.append((position, _NUMBERS[tag]))
    return found
