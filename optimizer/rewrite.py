"""SQL with LLM calls for servers without the extension."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from spark_llm.optimizer.core import function_table

if TYPE_CHECKING:
    from collections.abc import Collection

    from spark_llm.optimizer.catalog import Catalog
    from sqlglot import exp


def rewrite(sql: str, catalog: Catalog, off: Collection[str] = (), reasons: list[str] | None = None) -> str:
    """Rewrite a statement's LLM calls to the registered plain functions.

    Parameters
    ----------
    sql : str
        One statement. Text without an LLM call comes back as it is.
    catalog : Catalog
        What is known of tables; asked only where a pass needs it.
    off : collection of {'share', 'place', 'predicates', 'limits', 'joins', 'deduplicate'}
        Rewrites that are switched off.
    reasons : list of str, optional
        Gets in words what was not applied and why.

    Raises
    ------
    InvalidCall
        The statement cannot be parsed, or a call in it is not usable.

    Examples
    --------
    >>> from spark_llm.optimizer.catalog import Table
    >>> rewrite("SELECT llm('Sum up.', *, max_tokens => 9) FROM t", lambda table: Table({"review": ""}))
    'SELECT llm(\\'Sum up.\\', STRUCT(t.review AS review), \\'{"max_tokens": 9}\\') FROM t'
    """
    if not re.search(rf"\b({'|'.join(function_table()['functions'])})\s*\(", sql, re.IGNORECASE):
        return sql
    from spark_llm.optimizer.check_places import check_places
    from spark_llm.optimizer.dialect import Spark4
    from spark_llm.optimizer.expand_stars import expand_stars
    from spark_llm.optimizer.lower_calls import lower_calls
    from spark_llm.optimizer.parse import explain_prefix, parse

    explain = explain_prefix(sql)
    tree = expand_stars(check_places(parse(sql[len(explain) :])), catalog)
    tree = _optimized(tree, catalog, off, reasons if reasons is not None else [])
    return explain + lower_calls(tree).sql(dialect=Spark4, normalize_functions=False, comments=True)


def _optimized(tree: exp.Expr, catalog: Catalog, off: Collection[str], reasons: list[str]) -> exp.Expr:
    from spark_llm.optimizer.ask_together import ask_together
    from spark_llm.optimizer.classify_before_join import classify_before_join
    from spark_llm.optimizer.deduplicate_aggregates import deduplicate_aggregates
    from spark_llm.optimizer.order_predicates import order_predicates
    from spark_llm.optimizer.share_calls import share_calls

    reasons += [f"spark.llm.optimize.{name}.enabled is false" for name in off]
    if "place" not in off:
        tree = order_predicates(tree)
    if "share" not in off:  # before predicates hide their calls
        tree = share_calls(tree)
    if "joins" not in off:
        tree = classify_before_join(tree, catalog, reasons)
    if "deduplicate" not in off:
        tree = deduplicate_aggregates(tree, catalog, reasons)
    return ask_together(tree, reasons, several="predicates" not in off, early="limits" not in off)
