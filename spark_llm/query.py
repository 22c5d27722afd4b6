"""`spark_llm.sql`: the same SQL text on any server, with or without the extension."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spark_llm.session import route_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def sql(spark: SparkSession, text: str, **arguments: Any) -> DataFrame:
    """Run a statement that may call the LLM functions.

    Where the server has the extension the text goes through as it is. Elsewhere the calls are rewritten to the plain
    registered functions, which are optimized inside each partition only.

    Parameters
    ----------
    spark : SparkSession
        Classic or Spark Connect.
    text : str
        One SQL statement.
    **arguments
        Passed on to `spark.sql`, for example `args` for parameter markers.

    Returns
    -------
    DataFrame

    Examples
    --------
    >>> spark_llm.sql(spark, "SELECT llm('Summarize', review, max_tokens => 32) FROM reviews")  # doctest: +SKIP
    """
    if route_of(spark) == "extension":
        return spark.sql(text, **arguments)
    from spark_llm.optimizer.rewrite import rewrite
    from spark_llm.plain import register

    register(spark)
    return spark.sql(rewrite(text, lambda table: spark.table(table).columns), **arguments)
