"""Where the answer of a call is used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from spark_llm.optimizer.calls import is_llm_call
from spark_llm.optimizer.catalog import Catalog
from spark_llm.optimizer.lineage import output_names, source_of
from sqlglot import exp
from sqlglot.optimizer.scope import Scope

_CLAUSES: dict[type, str] = {
    exp.Where: "WHERE",
    exp.Having: "HAVING",
    exp.Qualify: "QUALIFY",
    exp.Group: "GROUP BY",
    exp.Order: "ORDER BY",
    exp.Join: "JOIN ON",
}


def answer_uses(node: exp.Expr, scope: Scope, scopes: Sequence[Scope], catalog: Catalog) -> tuple[str, ...]:
    """The places that look at the value of `node`, sorted.

    `result` is the statement's own output; the others are `WHERE`, `HAVING`, `QUALIFY`, `GROUP BY`, `ORDER BY`,
    `JOIN ON`, `aggregate`, `window`, and `argument` of another call. Answers are followed through the output of
    subqueries and CTEs.

    Parameters
    ----------
    scopes : sequence of Scope
        All scopes of the statement, the last being the statement itself.
    """
    return tuple(sorted(set(_uses(node, scope, scopes, catalog))))


def _uses(node: exp.Expr, scope: Scope, scopes: Sequence[Scope], catalog: Catalog) -> Iterator[str]:
    below, above = node, node.parent
    while above is not None and above is not scope.expression:
        if is_llm_call(above):
            yield "argument"
            return
        if isinstance(above, exp.Window):
            yield "window"
        if isinstance(above, exp.AggFunc) and not isinstance(above.parent, exp.Window):
            yield "aggregate"
        if (clause := _CLAUSES.get(type(above))) and not isinstance(above.parent, exp.Window):
            yield clause
            return
        below, above = above, above.parent
    yield from _output_uses(below, scope, scopes, catalog)


def _output_uses(select: exp.Expr, scope: Scope, scopes: Sequence[Scope], catalog: Catalog) -> Iterator[str]:
    """The uses of an output column of a scope."""
    if scope is scopes[-1]:
        yield "result"
    query = scope.expression
    selects = query.selects if isinstance(query, exp.Query) else []
    place = next((i for i, other in enumerate(selects) if other is select), None)
    name = select.alias_or_name.lower()
    if select.alias:
        order = scope.expression.args.get("order")
        yield from ("ORDER BY" for c in (order.find_all(exp.Column) if order else ()) if c.name.lower() == name)
    for other in scopes:
        if any(side is scope for side in other.set_operation_scopes or ()):
            yield from _column_uses(other, name, place, scopes, catalog)
            if other is scopes[-1]:
                yield "result"
    yield from _column_uses(scope, name, place, scopes, catalog)
    if scope.is_subquery and not scope.is_derived_table and scope.parent:
        yield from _uses(scope.expression, scope.parent, scopes, catalog)


def _column_uses(
    source: Scope, name: str, place: int | None, scopes: Sequence[Scope], catalog: Catalog
) -> Iterator[str]:
    """The uses of a column wherever `source` is in a FROM."""
    names = {n for n, i in output_names(source, catalog).items() if i == place} or {name}
    for scope in scopes:
        for relation in [r for r, s in scope.sources.items() if s is source]:
            for column in scope.columns:
                found = source_of(column, scope, catalog)
                if column.name.lower() in names and found is not None and found[0] == relation:
                    yield from _uses(column, scope, scopes, catalog)
            stars = [s for s in getattr(scope.expression, "selects", ()) if s.is_star]
            if stars and scope is scopes[-1]:
                yield "result"
            elif stars:
                yield from _column_uses(scope, name, None, scopes, catalog)
