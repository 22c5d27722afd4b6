"""The LLM functions for DataFrames, the same as in SQL.

Examples
--------
>>> from spark_llm import functions as F
>>> df.select(F.llm("Summarize the good qualities", "review", "movieinfo"))  # doctest: +SKIP
>>> df.where(F.llm_filter("Is it suitable for kids?", "review"))  # doctest: +SKIP
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from spark_llm.session import route_of

if TYPE_CHECKING:
    from pyspark.sql import Column

    ColumnOrName = Column | str

__all__ = ["llm", "llm_classify", "llm_extract", "llm_filter"]


def llm(prompt: str | Column, *fields: ColumnOrName, **options: Any) -> Column:
    """Ask the model about each distinct row of the fields.

    Parameters
    ----------
    prompt : str or Column
        The instruction. A text is constant for all rows; `{name}` in it refers to the field of that name.
    *fields : Column or str
        What the model sees of a row, by column name; `"*"` is every column.
    **options
        As in SQL: `model`, `max_tokens`, `temperature`, `seed`, `stop`, `choices`, `returns`, `json_schema`, `regex`,
        `system`, `field_order`, `unordered`, `on_error`, …

    Returns
    -------
    Column
        STRING, or the type that `returns` names.

    Examples
    --------
    >>> F.llm("Translate {review} to French", "review", max_tokens=64)  # doctest: +SKIP
    """
    return _call("llm", [prompt], fields, [], options)


def llm_filter(prompt: str | Column, *fields: ColumnOrName, **options: Any) -> Column:
    """Ask a yes/no question about the fields; BOOLEAN.

    Examples
    --------
    >>> df.where(F.llm_filter("Is it suitable for kids?", "review", "movieinfo"))  # doctest: +SKIP
    """
    return _call("llm_filter", [prompt], fields, [], options)


def llm_classify(*fields: ColumnOrName, labels: Sequence[str], **options: Any) -> Column:
    """Choose one of `labels` for the fields; STRING.

    Examples
    --------
    >>> F.llm_classify("review", labels=["positive", "negative", "mixed"])  # doctest: +SKIP
    """
    from pyspark.sql import functions as sf

    return _call("llm_classify", [], fields, [sf.array(*map(sf.lit, labels))], options)


def llm_extract(*fields: ColumnOrName, schema: str, **options: Any) -> Column:
    """Extract values from the fields into a STRUCT whose type is the DDL `schema`.

    Examples
    --------
    >>> F.llm_extract("review", schema="actor STRING, score INT").alias("e")  # doctest: +SKIP
    """
    from pyspark.sql import functions as sf

    return _call("llm_extract", [], fields, [sf.lit(schema)], options)


def _call(
    name: str,
    prompt: Sequence[str | Column],
    fields: Sequence[ColumnOrName],
    constants: Sequence[Column],
    options: dict[str, Any],
) -> Column:
    from pyspark.sql import SparkSession
    from pyspark.sql import functions as sf

    columns = [sf.col(field) if isinstance(field, str) else field for field in fields]
    leading = [sf.lit(p) if isinstance(p, str) else p for p in prompt]
    spark = SparkSession.getActiveSession()
    if spark is not None and route_of(spark) == "plain":
        from spark_llm.plain import call_plain, register

        register(spark)
        return call_plain(name, leading, columns, constants, options)
    given = [sf.call_function("llm_options", sf.lit(json.dumps(options)))] if options else []
    return sf.call_function(name, *leading, *columns, *constants, *given)
