"""Templates with alternatives: `[a|b|]` chooses one branch, `{slot}` takes a value or a random entry of a list."""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Mapping, Sequence

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")


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


def pick(rng: random.Random, templates: Sequence[str], held_out: bool) -> str:
    """Choose a template of the training part or of the held-out part (about one in seven, by its checksum).

    A part that would be empty is the whole list. '' (a function's default wording) is in both parts.
    """
    part = [t for t in templates if not t or (zlib.crc32(t.encode()) % 7 == 0) == held_out]
    return rng.choice(part or templates)


def sentence(text: str) -> str:
    """Capitalise the first letter and end with a full stop where there is no mark.

    >>> sentence("it works")
    'It works.'
    """
    text = text[:1].upper() + text[1:]
    return text if text[-1] in ".!?" else text + "."
