"""Evaluate equal calls of one SELECT once, in a derived table."""

from __future__ import annotations

from spark_llm.optimizer.calls import has_llm_call, is_deterministic, own_calls
from spark_llm.optimizer.hide_columns import hide_columns
from sqlglot import exp

_CONDITIONAL = (exp.Case, exp.If, exp.Coalesce, exp.Nullif, exp.And, exp.Or, exp.Lambda, exp.AggFunc, exp.Window)


def share_calls(tree: exp.Expr) -> exp.Expr:
    """Move a call that a SELECT over one relation makes more than once below it, in place.

    The call must be asked for exactly the rows for which it was asked before: it stands, unconditionally, in the first
    conjunct of WHERE that asks the model, or, where WHERE asks nothing, in the select list of a query without groups.

    Examples
    --------
    >>> import sqlglot
    >>> tree = sqlglot.parse_one("SELECT llm('Tone?', r) AS tone FROM t WHERE n > 1 AND llm('Tone?', r) = 'good'")
    >>> print(share_calls(tree).sql(normalize_functions=False, pretty=True))
    SELECT
      t.__llm_1 AS tone
    FROM (
      SELECT
        *,
        llm('Tone?', r) AS __llm_1
      FROM t
      WHERE
        n > 1
    ) AS t
    WHERE
      t.__llm_1 = 'good'
    """
    number = 0
    for select in reversed(list(tree.find_all(exp.Select, bfs=True))):
        while (call := _shareable(select)) is not None:
            number += 1
            _share(select, call, f"__llm_{number}")
    return tree


def _shareable(select: exp.Select) -> exp.Anonymous | None:
    """The first call that can be shared, None if there is none."""
    if not _over_one_relation(select):
        return None
    calls = [call for call in own_calls(select) if not call.find_ancestor(exp.From)]
    first = next((c for c in _conjuncts(select) if has_llm_call(c)), None)
    if first is None and (select.args.get("group") or any(p.find(exp.AggFunc) for p in select.selects)):
        return None
    roots = [first] if first is not None else select.selects
    unconditional = [call for root in roots for call in own_calls(root) if _is_unconditional(call, root)]
    return next((call for call in unconditional if calls.count(call) > 1 and _is_movable(call, select)), None)


def _over_one_relation(select: exp.Select) -> bool:
    source = select.args.get("from_")
    plain = not any(select.args.get(part) for part in ("joins", "laterals", "pivots", "sample", "match"))
    if source is None or not plain:
        return False
    relation = source.this
    simple = not any(relation.args.get(part) for part in ("joins", "laterals", "pivots", "sample", "when"))
    named = isinstance(relation.this, exp.Identifier) if isinstance(relation, exp.Table) else relation.alias
    return bool(isinstance(relation, exp.Table | exp.Subquery) and simple and named)


def _conjuncts(select: exp.Select) -> list[exp.Expr]:
    where = select.args.get("where")
    return (
        list(where.this.flatten(unnest=False))
        if where and isinstance(where.this, exp.And)
        else [where.this]
        if where
        else []
    )


def _is_unconditional(call: exp.Expr, root: exp.Expr) -> bool:
    if call is root:
        return True
    return (
        not isinstance(call.parent, _CONDITIONAL) and call.parent is not None and _is_unconditional(call.parent, root)
    )


def _is_movable(call: exp.Anonymous, select: exp.Select) -> bool:
    """Whether the call means the same below the select: no aliases of its list, no aggregates, no long qualifiers."""
    aliases = {projection.alias.lower() for projection in select.selects if projection.alias}
    columns = list(call.find_all(exp.Column))
    plain = not call.find(exp.AggFunc, exp.Window, exp.Query, exp.Star) and is_deterministic(call)
    return plain and all(not c.args.get("db") and (c.table or c.name.lower() not in aliases) for c in columns)


def _share(select: exp.Select, call: exp.Anonymous, name: str) -> None:
    conjuncts = _conjuncts(select)
    cheap = [c for c in conjuncts if not has_llm_call(c)]
    relation = select.args["from_"].this
    inner = exp.select(exp.Star(), exp.alias_(call.copy(), name)).from_(relation.copy())
    alias = relation.alias_or_name
    _keep_output(select, call, name, alias)
    rest = [c for c in conjuncts if has_llm_call(c)]
    select.set("where", exp.Where(this=exp.and_(*rest, copy=False, wrap=False)) if rest else None)
    for same in [c for c in own_calls(select) if c == call]:
        same.replace(exp.column(name, alias))
    below = inner.where(*cheap, copy=False) if cheap else inner
    select.set("from_", exp.From(this=below.subquery(alias)))


def _keep_output(select: exp.Select, call: exp.Anonymous, name: str, relation: str) -> None:
    """Stars do not show the new column, and a bare call keeps its text as its name."""
    hide_columns(select, [name], relation)
    for projection in [p for p in select.selects if p == call]:
        text = call.sql(dialect="databricks", normalize_functions=False)
        projection.replace(exp.alias_(projection.copy(), text, quoted=True))
