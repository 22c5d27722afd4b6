"""What the LLM calls of a script will take: `spark-llm plan`."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping

import sqlglot
from pyspark.sql import SparkSession
from sqlglot import TokenType
from sqlglot.errors import TokenError

from spark_llm.explanation import NO_CALL, explain
from spark_llm.session import configure

_COMMENT = r"--[^\n]*(\n|$)|/\*.*?\*/"
_QUERY = re.compile(r"SELECT|WITH|FROM|VALUES|TABLE|EXPLAIN|\(", re.IGNORECASE)
_LAZY = re.compile(r"CREATE\s+(OR\s+REPLACE\s+)?((GLOBAL\s+)?TEMP(ORARY)?\s+)?VIEW|SET\s|USE\s", re.IGNORECASE)


def plan_statements(text: str, conf: Mapping[str, str]) -> Iterator[str]:
    """Explain each statement of `text` that calls a model; run those that only prepare it.

    A statement that calls a model is never run, whatever it would write. Views, settings and what else calls no
    model are run in a local session with a catalog of its own, so that later statements can be planned.

    Yields
    ------
    str
        Each explained statement's first line, and what `spark_llm.explain` says about it.
    """
    with tempfile.TemporaryDirectory() as warehouse:
        builder = SparkSession.builder.appName("spark-llm plan").config("spark.sql.warehouse.dir", warehouse)
        for key, value in conf.items():
            builder = builder.config(key, value)
        spark = configure(builder).getOrCreate()
        try:
            for statement in split_statements(text):
                if (explained := _planned(spark, statement)) is not None:
                    yield f"-- {_first_line(statement)}\n{explained}\n"
        finally:
            spark.stop()


def split_statements(text: str) -> list[str]:
    """The statements of a script, without the semicolons between them.

    Examples
    --------
    >>> split_statements("SELECT ';' -- a; b\\n; SELECT 2;")
    ["SELECT ';' -- a; b", 'SELECT 2']
    """
    try:
        tokens = sqlglot.tokenize(text, read="spark")
    except TokenError:
        return [text]  # Spark says what is wrong with it
    borders = [token.start for token in tokens if token.token_type is TokenType.SEMICOLON]
    starts, ends = [0, *(border + 1 for border in borders)], [*borders, len(text)]
    pieces = [text[start:end].strip() for start, end in zip(starts, ends, strict=True)]
    return [piece for piece in pieces if _without_comments(piece)]


def _planned(spark: SparkSession, statement: str) -> str | None:
    """The explanation of a statement that calls a model; None after running another one."""
    if _LAZY.match(_without_comments(statement)):
        spark.sql(statement)
        return None
    explained = explain(statement, spark)
    if explained != NO_CALL:
        return explained
    if not _QUERY.match(_without_comments(statement)):
        spark.sql(statement)
    return None


def _without_comments(statement: str) -> str:
    """What stands after the comments at the beginning of a statement."""
    return re.sub(rf"^(\s*({_COMMENT}))*\s*", "", statement, flags=re.DOTALL)


def _first_line(statement: str) -> str:
    return _without_comments(statement).splitlines()[0]
