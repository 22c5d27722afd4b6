"""SQL with LLM calls for servers without the extension."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from spark_llm.optimizer.core import function_table

if TYPE_CHECKING:
    from spark_llm.optimizer.expand_stars import Schemas

_EXPLAIN = re.compile(r"\s*EXPLAIN\s+(?:(?:EXTENDED|CODEGEN|COST|FORMATTED)\s+)?", re.IGNORECASE)


def rewrite(sql: str, schemas: Schemas) -> str:
    """Rewrite a statement's LLM calls to the registered plain functions.

    Parameters
    ----------
    sql : str
        One statement. Text without an LLM call comes back as it is.
    schemas : callable
        From a table's name, as written in the statement, to its column names; asked only where a star needs it.

    Raises
    ------
    InvalidCall
        The statement cannot be parsed, or a call in it is not usable.

    Examples
    --------
    >>> rewrite("SELECT llm('Sum up.', *, max_tokens => 9) FROM t", lambda table: ["review"])
    'SELECT llm(\\'Sum up.\\', STRUCT(t.review AS review), \\'{"max_tokens": 9}\\') FROM t'
    """
    if not re.search(rf"\b({'|'.join(function_table()['functions'])})\s*\(", sql, re.IGNORECASE):
        return sql
    from spark_llm.optimizer.check_places import check_places
    from spark_llm.optimizer.dialect import Spark4
    from spark_llm.optimizer.expand_stars import expand_stars
    from spark_llm.optimizer.lower_calls import lower_calls
    from spark_llm.optimizer.order_predicates import order_predicates
    from spark_llm.optimizer.parse import parse
    from spark_llm.optimizer.share_calls import share_calls

    explain = match[0] if (match := _EXPLAIN.match(sql)) else ""
    tree = expand_stars(check_places(parse(sql[len(explain) :])), schemas)
    for apply in (order_predicates, share_calls, lower_calls):
        tree = apply(tree)
    return explain + tree.sql(dialect=Spark4, normalize_functions=False, comments=True)
