"""SQL text to a syntax tree."""

from __future__ import annotations

import re

import sqlglot
from spark_llm.optimizer.dialect import Spark4
from spark_llm.optimizer.errors import InvalidCall
from sqlglot import exp
from sqlglot.errors import SqlglotError

_EXPLAIN = re.compile(r"\s*EXPLAIN\s+(?:(?:EXTENDED|CODEGEN|COST|FORMATTED)\s+)?", re.IGNORECASE)


def explain_prefix(sql: str) -> str:
    """The EXPLAIN before a statement, '' where there is none."""
    return match[0] if (match := _EXPLAIN.match(sql)) else ""


def parse(sql: str) -> exp.Expr:
    """Parse one statement of Spark 4.

    Raises
    ------
    InvalidCall
        `LLM_UNREADABLE_SQL` with line and column; never with text of the statement, which may hold data.
    """
    try:
        tree = sqlglot.parse_one(sql, dialect=Spark4)
    except (SqlglotError, RecursionError) as error:
        raise _unreadable(error) from None
    if isinstance(tree, exp.Command):
        raise _unreadable(None)
    return tree


def _unreadable(error: object) -> InvalidCall:
    if isinstance(error, RecursionError):
        return InvalidCall(condition="LLM_UNREADABLE_SQL", detail="it is nested too deeply")
    first = (getattr(error, "errors", None) or [{}])[0]
    detail = f"line {first.get('line', '?')}, column {first.get('col', '?')}" if first else "this kind of statement"
    return InvalidCall(condition="LLM_UNREADABLE_SQL", detail=detail)
