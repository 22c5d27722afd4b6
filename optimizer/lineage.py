"""From an expression of a query to the columns of tables that it is made of."""

from __future__ import annotations

from collections.abc import Iterator

from spark_llm.optimizer.calls import is_llm_call
from spark_llm.optimizer.catalog import Catalog
from sqlglot import exp
from sqlglot.optimizer.scope import Scope

BaseColumn = tuple[str, str]
"""Table, as written, and column, in lower case."""


def base_columns(node: exp.Expr, scope: Scope, catalog: Catalog) -> frozenset[BaseColumn]:
    """The columns of tables, and the LLM functions as `('llm()', name)`, that an expression's value depends on.

    Columns are followed through subqueries, CTEs, set operations and correlation. What cannot be resolved counts as
    `('', column)`.

    Examples
    --------
    >>> import sqlglot
    >>> from sqlglot.optimizer.scope import build_scope
    >>> scope = build_scope(sqlglot.parse_one("SELECT s.n + 1 AS m FROM (SELECT a AS n FROM t) AS s"))
    >>> base_columns(scope.expression.selects[0], scope, lambda table: None)
    frozenset({('t', 'a')})
    """
    found = {("llm()", call.name.lower()) for call in node.find_all(exp.Anonymous) if is_llm_call(call)}
    for column in node.find_all(exp.Column):
        found.update(_column(column, scope, catalog))
    return frozenset(found)


def source_of(column: exp.Column, scope: Scope, catalog: Catalog) -> tuple[str, Scope] | None:
    """The name of the relation that a column belongs to, and the scope that has it in its FROM."""
    at: Scope | None = scope
    while at is not None:
        names = [column.table] if column.table else _holders(column.name, at, catalog)
        if len(names) == 1 and names[0] in at.sources:
            return names[0], at
        if len(names) > 1:
            return None
        at = at.parent
    return None


def _holders(name: str, scope: Scope, catalog: Catalog) -> list[str]:
    """The relations of FROM that have, or may have, a column."""
    relations = [relation for relation in scope.sources if relation in _from(scope)]
    known = {relation: output_names(scope.sources[relation], catalog) for relation in relations}
    having = [relation for relation in relations if name.lower() in known[relation]]
    return having or [relation for relation in relations if not known[relation]]


def _from(scope: Scope) -> set[str]:
    return set(scope.selected_sources)


def output_names(source: object, catalog: Catalog) -> dict[str, int]:
    """Names of a relation's columns and their places; {} where they are not known."""
    if isinstance(source, exp.Table):
        table = catalog(table_name(source))
        return {name.lower(): i for i, name in enumerate(table.columns)} if table else {}
    if isinstance(source, Scope):
        if source.set_operation_scopes:
            return output_names(source.set_operation_scopes[0], catalog)
        query = source.expression
        selects = query.selects if isinstance(query, exp.Query) else []
        if not any(s.is_star for s in selects):
            return {s.alias_or_name.lower(): i for i, s in enumerate(selects)}
    return {}


def table_name(table: exp.Table) -> str:
    """The name as written, quotes included."""
    return ".".join(part.sql(dialect="spark") for part in table.parts)


def _column(column: exp.Column, scope: Scope, catalog: Catalog) -> Iterator[BaseColumn]:
    found = source_of(column, scope, catalog)
    if found is None:
        yield "", column.name.lower()
        return
    yield from _of_source(found[1].sources[found[0]], column.name.lower(), catalog)


def _of_source(source: object, name: str, catalog: Catalog) -> Iterator[BaseColumn]:
    if isinstance(source, exp.Table):
        yield table_name(source).lower(), name
    elif isinstance(source, Scope):
        place = output_names(source, catalog).get(name)
        sides = source.set_operation_scopes or [source]
        for side in sides:
            query = side.expression
            selects = query.selects if isinstance(query, exp.Query) else []
            if side.set_operation_scopes:
                yield from _of_source(side, name, catalog)
            elif place is not None and place < len(selects):
                yield from base_columns(selects[place], side, catalog)
            elif place is None and len(names := list(side.selected_sources)) == 1:  # a star over one relation
                yield from _of_source(side.sources[names[0]], name, catalog)
            else:
                yield "", name
