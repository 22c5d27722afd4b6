"""Keep columns that a rewrite adds out of stars."""

from __future__ import annotations

from collections.abc import Sequence

from sqlglot import exp


def hide_columns(select: exp.Select, names: Sequence[str], relation: str) -> None:
    """Leave `names`, columns of `relation`, out of `*` and `relation.*` in a select list, in place."""
    for projection in select.selects:
        star = projection.this if isinstance(projection, exp.Column) else projection
        of = projection.table if isinstance(projection, exp.Column) else ""
        if isinstance(star, exp.Star) and of.lower() in ("", relation.lower()):
            star.set("except_", [*(star.args.get("except_") or ()), *map(exp.column, names)])
