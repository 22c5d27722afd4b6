"""What a session knows of its tables, for the rewrite of SQL text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from spark_llm.optimizer.catalog import Catalog, Table, declared_tables

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_CONSTRAINT = re.compile(r"\b(?:PRIMARY\s+KEY|UNIQUE)\s*\(([^)]*)\)", re.IGNORECASE)


def session_catalog(spark: SparkSession) -> Catalog:
    """Columns and types, keys where the catalog has constraints, and what `spark.llm.dependencies` declares.

    The server is asked about a table when a rewrite first needs it. A name that it does not know gives None.
    """
    declared = declared_tables(spark.conf.get("spark.llm.dependencies", "{}") or "{}")
    known: dict[str, Table | None] = {}

    def table(name: str) -> Table | None:
        if name not in known:
            known[name] = _table(spark, name, declared.get(name.replace("`", "").lower(), Table()))
        return known[name]

    return table


def _table(spark: SparkSession, name: str, declared: Table) -> Table | None:
    from pyspark.errors import AnalysisException

    try:
        columns = dict(spark.table(name).dtypes)
        rows = spark.sql(f"DESCRIBE TABLE EXTENDED {name}").collect()
    except AnalysisException:
        return None
    described = {str(row[0]).strip(): str(row[1]) for row in rows}
    view = described.get("View Text", "") if described.get("Type", "").upper() == "VIEW" else ""
    found = (match[1] for kind in described.values() for match in [_CONSTRAINT.search(kind)] if match)
    keys = tuple(frozenset(part.strip(" `").lower() for part in names.split(",")) for names in found)
    return Table(columns, keys + declared.keys, declared.dependencies, view)
