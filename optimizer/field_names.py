"""The names under which the model sees a call's arguments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sqlglot import exp


def field_names(arguments: Sequence[exp.Expr]) -> list[str]:
    """Name the fields of a call by the rule of the Catalyst extension.

    A column, struct member or alias has its own name; where two share one, they are qualified (`a.t`); what is equal
    even then is numbered (`t_2`). Any other expression is `field_1` and so on, by its position among the fields.

    Examples
    --------
    >>> from sqlglot import parse_one
    >>> field_names([parse_one(text) for text in ("a.t", "b.t", "upper(x)", "x", "y AS x")])
    ['a.t', 'b.t', 'field_3', 'x', 'x_2']
    """
    candidates = [_candidates(argument, i + 1) for i, argument in enumerate(arguments)]
    count = Counter(names[0] for names in candidates)
    chosen = [names[1] if count[names[0]] > 1 and len(names) > 1 else names[0] for names in candidates]
    earlier = [chosen[:i].count(name) for i, name in enumerate(chosen)]
    return [f"{name}_{n + 1}" if n else name for name, n in zip(chosen, earlier, strict=True)]


def _candidates(argument: exp.Expr, position: int) -> list[str]:
    """Names from short to long."""
    if isinstance(argument, exp.Alias):
        return [argument.alias]
    if isinstance(argument, exp.Column):
        names = [part.name for part in argument.parts]
        return [".".join(names[-n:]) for n in range(1, len(names) + 1)]
    if isinstance(argument, exp.Dot):
        return [argument.name, *(f"{outer}.{argument.name}" for outer in _candidates(argument.this, position))]
    return [f"field_{position}"]
