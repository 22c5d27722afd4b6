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
    """Expand stars in place, in the order of Spark's `SELECT *`: columns of JOIN ... USING first, and once.

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
    columns = (
        [(relation, name) for name in _names(scope.sources[relation], catalog, function, relation)]
        if relation
        else _joined(scope, catalog, function)
    )
    for source, name in columns:
        if name.lower() not in left_out:
            yield exp.column(name, source or None)


def _joined(scope: Scope, catalog: Catalog, function: str) -> list[tuple[str, str]]:
    """What `*` stands for: qualifier ('' for a column of USING or NATURAL) and name.

    As in Spark, the columns that a join merges come first, then the others of its left side, then of its right side,
    which LEFT SEMI and ANTI do not give. Relations that a comma separates are joined last.
    """
    select = scope.expression
    first = select.args.get("from_")
    done, found = list[tuple[str, str]](), list[tuple[str, str]]()
    for node in ((first,) if first else ()) + tuple(select.args.get("joins") or ()):
        relation = node.this.alias_or_name
        names = _names(scope.sources.get(relation), catalog, function, relation)
        if isinstance(node, exp.From) or _is_comma(node):
            done, found = done + found, [(relation, name) for name in names]
            continue
        merged = _merged(node, [name for _, name in found], names)
        right = [] if node.kind in ("SEMI", "ANTI") else [(relation, name) for name in names]
        found = [("", name) for name in merged] + [
            (q, n) for q, n in found + right if n.lower() not in map(str.lower, merged)
        ]
    return done + found


def _is_comma(join: exp.Join) -> bool:
    return not (join.kind or join.side or join.method or join.args.get("on") or join.args.get("using"))


def _merged(join: exp.Join, left: Sequence[str], right: Sequence[str]) -> list[str]:
    """The columns of which a join makes one."""
    if join.method == "NATURAL":
        return [name for name in left if name.lower() in map(str.lower, right)]
    return [column.name for column in join.args.get("using") or ()]


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
