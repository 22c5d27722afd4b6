"""Replace `*` and `t.*` in the arguments of LLM calls by columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from spark_llm.optimizer.calls import is_llm_call
from spark_llm.optimizer.catalog import Catalog
from spark_llm.optimizer.lineage import table_name
from spark_llm.optimizer.options import malformed
from sqlglot import exp
from sqlglot.optimizer.scope import Scope, traverse_scope


def expand_stars(tree: exp.Expr, catalog: Catalog) -> exp.Expr:
    """Expand stars in place, in the order of FROM; a column of JOIN ... USING comes once.

    Raises
    ------
    InvalidCall
        A star over a relation whose columns the text does not tell.

    Examples
    --------
    >>> import sqlglot
    >>> from spark_llm.optimizer.catalog import Table
    >>> tree = sqlglot.parse_one("SELECT llm('Sum up.', r.*) FROM reviews AS r")
    >>> expand_stars(tree, lambda table: Table({"id": "", "review": ""})).sql(normalize_functions=False)
    "SELECT llm('Sum up.', r.id, r.review) FROM reviews AS r"
    """
    for scope in traverse_scope(tree):
        for call in list(scope.find_all(exp.Anonymous)):
            if is_llm_call(call) and any(map(_is_star, call.expressions)):
                arguments = [column for a in call.expressions for column in _expand(a, scope, catalog, call.name)]
                call.set("expressions", arguments)
    return tree


def _is_star(node: exp.Expr) -> bool:
    return isinstance(node, exp.Star) or (isinstance(node, exp.Column) and isinstance(node.this, exp.Star))


def _expand(argument: exp.Expr, scope: Scope, catalog: Catalog, function: str) -> Iterator[exp.Expr]:
    if not _is_star(argument):
        yield argument
        return
    star = argument if isinstance(argument, exp.Star) else argument.this
    relation = argument.table if isinstance(argument, exp.Column) else ""
    if relation and relation not in scope.sources:
        raise malformed(function, f"{relation}.* names no relation of its FROM ({', '.join(scope.sources)})")
    left_out = {column.name.lower() for column in star.args.get("except_") or ()}
    for source, name in _columns(scope, [relation] if relation else _relations(scope), catalog, function):
        if name.lower() not in left_out:
            yield exp.column(name, source or None)


def _relations(scope: Scope) -> list[str]:
    """The names of FROM and its joins, as written."""
    select = scope.expression
    first = select.args.get("from_")
    joins = select.args.get("joins") or ()
    return [node.this.alias_or_name for node in ((first,) if first else ()) + tuple(joins)]


def _columns(scope: Scope, relations: Sequence[str], catalog: Catalog, function: str) -> Iterator[tuple[str, str]]:
    """Qualifier ('' for a column of USING) and name."""
    using = {
        name.name.lower() for join in scope.expression.args.get("joins") or () for name in join.args.get("using") or ()
    }
    seen = set()
    for relation in relations:
        for name in _names(scope.sources.get(relation), catalog, function, relation):
            merged = len(relations) > 1 and name.lower() in using
            if not merged or name.lower() not in seen:
                yield "" if merged else relation, name
            seen.add(name.lower())


def _names(source: object, catalog: Catalog, function: str, relation: str) -> Sequence[str]:
    if isinstance(source, exp.Table) and isinstance(source.this, exp.Identifier):
        if (table := catalog(table_name(source))) is not None:
            return list(table.columns)
        raise malformed(function, f"the columns of {relation} are not known here; name them instead of *")
    if isinstance(source, Scope) and isinstance(source.expression, exp.Query):
        return list(_output_names(source, catalog, function, relation))
    raise malformed(function, f"the columns of {relation or 'its FROM'} are not known here; name them instead of *")


def _output_names(scope: Scope, catalog: Catalog, function: str, relation: str) -> Iterator[str]:
    """The output columns of a subquery; a set operation has those of its first side."""
    if scope.set_operation_scopes:
        yield from _output_names(scope.set_operation_scopes[0], catalog, function, relation)
        return
    query = scope.expression
    for projection in query.selects if isinstance(query, exp.Query) else ():
        if _is_star(projection):
            yield from (column.name for column in _expand(projection, scope, catalog, function))
        elif projection.output_name:
            yield projection.output_name
        else:
            raise malformed(function, f"a column of {relation} has no name; name it with AS")
