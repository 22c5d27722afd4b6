"""What a query's LLM calls will take and how they will be asked, before anything is asked."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING

from spark_llm.errors import LlmError
from spark_llm.session import route_of, settings

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

SECTION = "== Extended Information (LLM) =="
NO_CALL = "no LLM call"
FAILED = "Error occurred during query planning"


class Explanation(str):
    """Text that a notebook shows as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def explain(query: DataFrame | str, spark: SparkSession | None = None) -> Explanation:
    """Show, per LLM call: rows, distinct calls, tokens, field order and why, rewrites, seconds and money.

    Takes a bounded sample of the calls' arguments and asks the model nothing. Seconds come from earlier queries on this
    engine, money from `spark.llm.price.*`.

    Parameters
    ----------
    query : DataFrame or str
        A query, classic or over Spark Connect, or one SQL statement.
    spark : SparkSession, optional
        For a SQL statement; by default the active one.

    Returns
    -------
    Explanation
        EXPLAIN's section about LLM calls; a str.

    Raises
    ------
    LlmError
        `LLM_EXTENSION_MISSING`: without the extension nothing is planned before tasks run.

    Examples
    --------
    >>> spark_llm.explain("SELECT llm('Summarize', review) FROM reviews")  # doctest: +SKIP
    llm(Summarize) fields: review
    asked of: native engine, model default
      deduplicated
      fields by shared text: review (1412 distinct)
      estimate: 1500 rows, 1412 distinct calls, …
    """
    from pyspark.sql import SparkSession

    session = spark or (SparkSession.active() if isinstance(query, str) else query.sparkSession)
    if route_of(session) != "extension":
        raise LlmError("LLM_EXTENSION_MISSING", settings=" ".join(f"--conf {k}={v}" for k, v in settings().items()))
    return Explanation(_section(_statement(session, query) if isinstance(query, str) else _frame(query)))


def _statement(spark: SparkSession, text: str) -> str:
    plan = spark.sql(text if text.lstrip()[:7].upper() == "EXPLAIN" else f"EXPLAIN {text}").collect()[0][0]
    if plan.startswith(FAILED):
        spark.sql(text)  # EXPLAIN prints an error where the statement raises it
    return plan


def _frame(query: DataFrame) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        query.explain()
    return printed.getvalue()


def _section(plan: str) -> str:
    return plan.partition(SECTION)[2].strip() or NO_CALL
