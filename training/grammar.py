"""Templates with alternatives: `[a|b|]` chooses one branch, `{slot}` takes a value or a random entry of a list."""

from __future__ import annotations

import functools
import random
import re
import zlib
from collections.abc import Mapping, Sequence

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")
_WORD = re.compile(r"[a-z']+")


def expand(rng: random.Random, template: str, slots: Mapping[str, str | Sequence[str]]) -> str:
    """Expand a template; nested alternatives are resolved from the inside.

    >>> expand(random.Random(0), "[The|The] {thing} works", {"thing": "lamp"})
    'The lamp works'
    """
    while match := _CHOICE.search(template):
        template = template[: match.start()] + rng.choice(match[1].split("|")) + template[match.end() :]
    while match := _SLOT.search(template):
        value = slots[match[1]]
        value = value if isinstance(value, str) else rng.choice(value)
        template = template[: match.start()] + value + template[match.end() :]
    return " ".join(template.split())


def variants(*templates: str) -> tuple[str, ...]:
    """Every expansion of the templates' alternatives, each a template of its own.

    >>> variants("Is [it|this] good?", "It is good.")
    ('Is it good?', 'Is this good?', 'It is good.')
    """
    return tuple(dict.fromkeys(whole for template in templates for whole in _variants(template)))


def _variants(template: str) -> list[str]:
    if not (match := _CHOICE.search(template)):
        return [" ".join(template.split())]
    before, after = template[: match.start()], template[match.end() :]
    return [whole for branch in match[1].split("|") for whole in _variants(before + branch + after)]


def pick(rng: random.Random, templates: Sequence[str], held_out: bool) -> str:
    """Choose a template of the training part or of the held-out part.

    A held-out part that would be empty is the whole list. '' (a function's default wording) is in both parts.
    """
    shown, hidden = _parts(tuple(templates))
    return rng.choice((hidden if held_out else shown) or templates)


@functools.cache
def _parts(templates: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """The training part and the held-out part of a list: up to a quarter of it, in the order of checksums.

    Every word (and slot) of a held-out template stands in some template of the training part: nobody could know the
    meaning of others. So held-out templates say in new combinations what can be understood.
    """
    shown, hidden = [t for t in templates if t], list[str]()
    for template in sorted(shown, key=lambda t: zlib.crc32(t.encode())):
        others = {word for other in shown if other != template for word in _words(other)}
        if 4 * len(hidden) < len(templates) - 3 and _words(template) <= others:
            shown.remove(template)
            hidden.append(template)
    return [t for t in templates if t not in hidden], hidden


def _words(template: str) -> set[str]:
    return set(_WORD.findall(template.lower()))


def sentence(text: str) -> str:
    """Capitalise the first letter and end with a full stop where there is no mark.

    >>> sentence("it works")
    'It works.'
    """
    text = text[:1].upper() + text[1:]
    return text if text[-1] in ".!?" else text + "."
