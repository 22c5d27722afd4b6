"""Classification: sentiment, topic and tone among labels that vary by prompt, and ratings."""

from __future__ import annotations

import random
from collections.abc import Mapping

from training.examples import TOPICS, Example, random_row, some_fields, topic_tag
from training.grammar import pick

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
        ("recommended", "not recommended", "undecided", "unclear"),
        ("great", "terrible", "so-so", "no opinion"),
        ("thumbs up", "thumbs down", "both", "neither"),
        ("Positive", "Negative", "Mixed", "Neutral"),
    )
)


_SENTIMENT_ASKED = (
    "", "", "", "What is the sentiment of the review?", "How does the reviewer feel?", "Classify the sentiment.",
    "Which sentiment does the text express?", "Is the opinion favourable?", "Sentiment of this review",
    "What does the writer think of it?", "Decide how the author judges it.", "Label the review.",
    "Tell the mood of the customer.", "Is the critic for or against it?", "Is the review fresh or rotten?",
    "What is the verdict of the review?", "What is the sentiment?", "Sentiment?", "How is the text meant?",
    "Is the review positive or negative?", "What does the review say?", "Choose the sentiment of the record.",
    "Which label fits the opinion?", "Does the writer like it or not?", "What is the writer's opinion?",
    "Determine the sentiment of the review.", "How did they like it?", "Judge the mood of the text.",
)  # fmt: skip


def sentiment(rng: random.Random, held_out: bool) -> Example:
    """Two, three or four classes of opinion, by varying label words."""
    names = rng.choice(_LABELS)
    classes = rng.choice(
        (("positive", "negative"), ("positive", "negative", "mixed"), ("positive", "negative", "neutral"), tuple(names))
    )
    while (row := random_row(rng, held_out, "review", "review", "film", "place", "critique", "critique")).facts[
        "polarity"
    ] not in classes:
        pass
    classes = rng.sample(classes, len(classes))
    labels, label_tags = tuple(names[c] for c in classes), tuple(f"polarity:{c}" for c in classes)
    asked = pick(rng, _SENTIMENT_ASKED, held_out)
    answer = names[str(row.facts["polarity"])]
    task, fields = f"sentiment_{min(len(classes), 3)}", some_fields(rng, row, ("review",))
    return Example(
        task,
        "llm_classify",
        asked,
        fields,
        answer,
        labels,
        tags=row.tags,
        label_tags=label_tags,
        gist=f"polarity:{row.facts['polarity']}",
    )


_CLASSIFY_ASKED = (
    "", "", "", "What is it about?", "Classify the topic.", "Which topic does the text have?", "Choose the category.",
    "Assign a category.", "Sort it into one of the groups.", "What is the topic?", "What is the text about?",
    "Which category does it belong to?", "Which label fits?", "Which topic fits the record?", "Choose a topic.",
    "Find the right category for the record.", "What does it concern?", "Assign the topic of the message.",
)  # fmt: skip


def topic(rng: random.Random, held_out: bool) -> Example:
    """A topic among labels that vary from prompt to prompt."""
    kind = rng.choice(("ticket", "ticket", "news", "news", "review"))
    row = random_row(rng, held_out, kind)
    topics, fact, needed = TOPICS[kind]
    truth = str(row.facts[fact])
    others = rng.sample([t for t in topics if t != truth], rng.choice((1, 2, 3, 4, 5, 6, 7)))
    named = rng.sample([truth, *others], len(others) + 1)
    style = rng.choice((str, str, str, str.capitalize, str.upper))
    labels, label_tags = tuple(map(style, named)), tuple(topic_tag(kind, t) for t in named)
    fields = some_fields(rng, row, needed)
    asked, gist = pick(rng, _CLASSIFY_ASKED, held_out), topic_tag(kind, truth)
    return Example(
        "topic", "llm_classify", asked, fields, style(truth), labels, tags=row.tags, label_tags=label_tags, gist=gist
    )


_TONE_ASKED = (
    "", "What is the tone?", "How does the customer sound?", "Classify the tone.", "Which tone does the message have?",
    "Is the customer angry or polite?", "What is the mood of the writer?", "Tell the tone of the message.",
    "How does the writer sound?", "In which tone is it written?", "Choose the tone.", "What is the customer's mood?",
)  # fmt: skip


def tone(rng: random.Random, held_out: bool) -> Example:
    """The tone of a support message."""
    row = random_row(rng, held_out, "ticket")
    labels = tuple(rng.sample(("angry", "polite", "neutral"), 3))
    asked = pick(rng, _TONE_ASKED, held_out)
    fields, found = some_fields(rng, row, ("message",)), str(row.facts["tone"])
    label_tags = tuple(f"tone:{label}" for label in labels)
    return Example(
        "tone",
        "llm_classify",
        asked,
        fields,
        found,
        labels,
        tags=row.tags,
        label_tags=label_tags,
        gist=f"tone:{found}",
    )


_RATING_ASKED = (
    "Rate the review from 1 to 5.", "How many stars from 1 to 5 does the reviewer give?", "Guess the stars (1-5).",
    "Rating from 1 (bad) to 5 (good)?", "On a scale of 1 to 5, how happy is the customer?",
    "Give a score from 1 to 5.", "How many stars?", "How many stars does it get?", "Rate it from 1 to 5.",
    "What rating from 1 to 5 does the review give?", "Stars from 1 to 5?", "How good is it from 1 to 5?",
)  # fmt: skip


def rating(rng: random.Random, held_out: bool) -> Example:
    """Stars from 1 to 5."""
    row = random_row(rng, held_out, "review", "review", "film", "place", "critique")
    asked, answer = pick(rng, _RATING_ASKED, held_out), str(row.facts["stars"])
    fields = some_fields(rng, row, ("review",))
    if rng.random() < 0.5:
        return Example("rating", "llm_classify", asked, fields, answer, tuple("12345"), tags=row.tags)
    return Example("rating", "llm", asked, fields, answer, returns="INT", tags=row.tags)
