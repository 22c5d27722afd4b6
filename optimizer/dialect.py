"""The SQL that is read and written."""

from __future__ import annotations

from sqlglot.dialects.databricks import Databricks


class Spark4(Databricks):
    """Databricks' superset of Spark SQL; `''` inside a string is a quote, as in Spark 4.0 and newer."""

    class Tokenizer(Databricks.Tokenizer):
        STRING_ESCAPES = ["\\", "'", '"']  # noqa: RUF012
