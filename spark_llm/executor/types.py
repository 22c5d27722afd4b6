"""Spark types, given as JSON, as Arrow types."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pyarrow as pa
from pyspark.sql.pandas.types import to_arrow_type
from pyspark.sql.types import _parse_datatype_json_string


def arrow_type(spark_type: Any) -> pa.DataType:
    """The Arrow type with which Spark receives values of a type (Spark's JSON form)."""
    return to_arrow_type(_parse_datatype_json_string(json.dumps(spark_type)))


def session_zone(conf: Mapping[str, str]) -> tzinfo:
    """The session's time zone, by name or offset: what a TIMESTAMP answer without a zone means."""
    name = conf.get("spark.sql.session.timeZone", "UTC")
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        return datetime.fromisoformat(f"2000-01-01T00:00:00{name}").tzinfo or UTC
