"""Put the queries of views in their places."""

from __future__ import annotations

from spark_llm.optimizer.catalog import Catalog
from spark_llm.optimizer.lineage import table_name
from spark_llm.optimizer.parse import parse
from sqlglot import exp
from sqlglot.optimizer.scope import traverse_scope

MAX_NESTED = 20


def expand_views(tree: exp.Expr, catalog: Catalog, nested: int = 0) -> exp.Expr:
    """Replace, in place, each view whose query the catalog knows by that query as a derived table.

    Examples
    --------
    >>> from spark_llm.optimizer.catalog import Table
    >>> view = Table(view="SELECT a FROM t")
    >>> expand_views(parse("SELECT v.a FROM v"), {"v": view}.get).sql()
    'SELECT v.a FROM (SELECT a FROM t) AS v'
    """
    found = [
        (source, table)
        for scope in traverse_scope(tree)
        for source in scope.sources.values()
        if isinstance(source, exp.Table) and (table := catalog(table_name(source))) and table.view
    ]
    for source, table in found if nested < MAX_NESTED else []:
        query = expand_views(parse(table.view), catalog, nested + 1)
        if isinstance(query, exp.Query):
            derived = query.subquery(source.alias_or_name, copy=False)
            derived.set("joins", source.args.get("joins"))
            source.replace(derived)
    return tree
