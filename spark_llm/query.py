"""`spark_llm.sql`: the same SQL text on any server, with or without the extension."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spark_llm.conf import conf_table
from spark_llm.session import route_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

REWRITES = ("share", "place", "predicates", "limits", "joins", "deduplicate")


def sql(spark: SparkSession, text: str, **arguments: Any) -> DataFrame:
    """Run a statement that may call the LLM functions.

    Where the server has the extension the text goes through as it is. Elsewhere the calls are rewritten to the plain
    registered functions, which are optimized inside each partition only; keys, types and `spark.llm.dependencies`
    come from the session's catalog, and EXPLAIN ends with what was not rewritten and why.

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
    from spark_llm.catalog import session_catalog
    from spark_llm.optimizer.rewrite import rewrite
    from spark_llm.plain import register

    register(spark)
    reasons: list[str] = []
    rewritten = rewrite(text, session_catalog(spark), _switched_off(spark), reasons)
    frame = spark.sql(rewritten, **arguments)
    if rewritten != text and rewritten.lstrip()[:7].upper() == "EXPLAIN":
        return _explained(frame, reasons)
    return frame


def _switched_off(spark: SparkSession) -> list[str]:
    """The rewrites that this session does not want."""

    def is_off(name: str) -> bool:
        key = f"spark.llm.optimize.{name}"
        return str(spark.conf.get(key, conf_table()[key]["default"])).lower() == "false"

    return [name for name in REWRITES if is_off("enabled") or is_off(f"{name}.enabled")]


def _explained(frame: DataFrame, reasons: list[str]) -> DataFrame:
    """Spark's plan with the section that the extension adds elsewhere."""
    from pyspark.sql import functions as sf

    lines = ["plain functions: optimized inside each partition only", *dict.fromkeys(reasons)]
    section = "\n== Extended Information (LLM) ==\n" + "\n".join(f"  {line}" for line in lines) + "\n"
    return frame.select(sf.concat(frame.columns[0], sf.lit(section)).alias(frame.columns[0]))
