"""Functional dependencies among the columns that a SELECT sees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from spark_llm.optimizer.catalog import Catalog, Dependency
from spark_llm.optimizer.lineage import output_names, source_of, table_name
from sqlglot import exp
from sqlglot.optimizer.scope import Scope


def functional_dependencies(scope: Scope, catalog: Catalog) -> tuple[Dependency, ...]:
    """Dependencies that follow from keys, UNIQUE constraints, declarations, equalities, grouping and constants.

    Columns are written `relation.column`, in lower case.

    Examples
    --------
    >>> import sqlglot
    >>> from sqlglot.optimizer.scope import build_scope
    >>> from spark_llm.optimizer.catalog import Table
    >>> scope = build_scope(sqlglot.parse_one("SELECT 1 FROM a JOIN b ON a.x = b.id"))
    >>> tables = {"a": Table({"x": ""}), "b": Table({"id": "", "n": ""}, keys=(frozenset({"id"}),))}
    >>> found = functional_dependencies(scope, tables.get)
    >>> sorted(closure(frozenset({"a.x"}), found))
    ['a.x', 'b.id', 'b.n']
    """
    found = [d for name in scope.selected_sources for d in _of_relation(name, scope.sources[name], catalog)]
    return (*found, *_equalities(scope, catalog))


def closure(columns: frozenset[str], dependencies: Iterable[Dependency]) -> frozenset[str]:
    """All columns that `columns` determine."""
    known, rules = columns, list(dependencies)
    while grown := [right for left, right in rules if left <= known and not right <= known]:
        known = known.union(*grown)
    return known


def _of_relation(name: str, source: object, catalog: Catalog) -> Iterator[Dependency]:
    def qualified(columns: Iterable[str]) -> frozenset[str]:
        return frozenset(f"{name.lower()}.{column.lower()}" for column in columns)

    if isinstance(source, exp.Table) and (table := catalog(table_name(source))):
        for key in table.keys:
            yield qualified(key), qualified(table.columns)
        for left, right in table.dependencies:
            yield qualified(left), qualified(right)
    elif isinstance(source, Scope) and not source.set_operation_scopes and isinstance(source.expression, exp.Select):
        for left, right in _of_query(source, catalog):
            yield qualified(left), qualified(right)


def _of_query(scope: Scope, catalog: Catalog) -> Iterator[Dependency]:
    """Dependencies among the output columns of a subquery."""
    outputs: dict[str, str] = {}
    query = scope.expression
    for select in query.selects if isinstance(query, exp.Select) else []:
        column = select.unalias()
        if isinstance(column, exp.Column) and not column.is_star and (inner := _qualified(column, scope, catalog)):
            outputs.setdefault(inner, select.alias_or_name)
    inside = functional_dependencies(scope, catalog)
    for inner, name in outputs.items():
        determined = closure(frozenset({inner}), inside)
        yield frozenset({name}), frozenset(outputs[c] for c in determined if c in outputs)
    several = {left for left, _ in inside if len(left) > 1 and left <= outputs.keys()}
    for left in several:
        determined = closure(left, inside)
        yield frozenset(outputs[c] for c in left), frozenset(outputs[c] for c in determined if c in outputs)
    if (group := scope.expression.args.get("group")) and not _several_groupings(group):
        keys = [_qualified(k, scope, catalog) if isinstance(k, exp.Column) else None for k in group.expressions]
        if all(key in outputs for key in keys):
            yield frozenset(outputs[str(k)] for k in keys), frozenset(output_names(scope, catalog))


def _several_groupings(group: exp.Expr) -> bool:
    return any(group.args.get(kind) for kind in ("grouping_sets", "cube", "rollup", "all"))


def _equalities(scope: Scope, catalog: Catalog) -> Iterator[Dependency]:
    select = scope.expression
    joins = select.args.get("joins") or ()
    outer = any(join.side for join in joins)
    where = select.args.get("where")
    for predicate in _conjuncts(where.this if where else None):
        yield from _equality(predicate, scope, catalog)
    for join in joins:
        for predicate in [] if outer else _conjuncts(join.args.get("on")):
            yield from _equality(predicate, scope, catalog)


def _equality(predicate: exp.Expr, scope: Scope, catalog: Catalog) -> Iterator[Dependency]:
    if not isinstance(predicate, exp.EQ):
        return
    sides = [_qualified(side, scope, catalog) for side in (predicate.this, predicate.expression)]
    columns = [frozenset({side}) for side in sides if side]
    constant = isinstance(predicate.expression, exp.Literal)
    if len(columns) == 2:
        yield columns[0], columns[1]
        yield columns[1], columns[0]
    elif len(columns) == 1 and constant:
        yield frozenset(), columns[0]


def _conjuncts(condition: exp.Expr | None) -> list[exp.Expr]:
    if condition is None:
        return []
    return list(condition.flatten(unnest=False)) if isinstance(condition, exp.And) else [condition]


def _qualified(node: exp.Expr, scope: Scope, catalog: Catalog) -> str | None:
    """`relation.column` of a column that belongs to this scope."""
    if not isinstance(node, exp.Column) or (found := source_of(node, scope, catalog)) is None or found[1] is not scope:
        return None
    return f"{found[0]}.{node.name}".lower()
