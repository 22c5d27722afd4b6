"""Sets up Spark sessions: where the JAR is, what a session needs, and whether one has it."""

from __future__ import annotations

import sys
import weakref
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal

from spark_llm.errors import LlmError
from spark_llm.java import java_command

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Route = Literal["extension", "plain"]
_routes: weakref.WeakKeyDictionary[Any, Route] = weakref.WeakKeyDictionary()


def jar_path() -> str:
    """The path of the Catalyst extension's JAR inside the installed package."""
    return str(files("spark_llm").joinpath("jars", "spark-llm.jar"))


def settings() -> dict[str, str]:
    """The Spark settings that load spark-llm: `spark.jars`, and this Python for planner, tasks and engine worker."""
    return {"spark.jars": jar_path(), "spark.llm.python": sys.executable}


def configure(builder: SparkSession.Builder) -> SparkSession.Builder:
    """Add spark-llm to a session that is about to be built.

    Parameters
    ----------
    builder : SparkSession.Builder
        A classic builder. JARs it already names are kept.

    Returns
    -------
    SparkSession.Builder
        The same builder.

    Raises
    ------
    JavaNotUsable
        When there is no Java 17 or newer.
    LlmError
        `LLM_EXTENSION_MISSING` when a session without the extension already runs: JARs cannot be added to it.

    Examples
    --------
    >>> from pyspark.sql import SparkSession
    >>> import spark_llm
    >>> spark = spark_llm.configure(SparkSession.builder.master("local[2]")).getOrCreate()  # doctest: +SKIP
    >>> spark.sql("SELECT llm('Is it positive?', review) FROM reviews")  # doctest: +SKIP
    """
    from pyspark.sql import SparkSession

    java_command()
    running = SparkSession.getActiveSession()
    if running is not None and route_of(running) != "extension":
        shown = " ".join(f"--conf {key}={value}" for key, value in settings().items())
        raise LlmError("LLM_EXTENSION_MISSING", settings=shown)
    given = getattr(builder, "_options", {})
    wanted = settings()
    if given.get("spark.jars"):
        wanted["spark.jars"] = f"{given['spark.jars']},{wanted['spark.jars']}"
    for key, value in wanted.items():
        if key == "spark.jars" or key not in given:
            builder = builder.config(key, value)
    return builder


def route_of(spark: SparkSession) -> Route:
    """How LLM calls reach this session: through the extension, or as plain registered functions.

    Asks the server once per session, so it also works over Spark Connect.
    """
    if spark not in _routes:
        _routes[spark] = "extension" if spark.catalog.functionExists("llm_options") else "plain"
    return _routes[spark]
