"""Spark types, given as JSON, as Arrow types."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
from pyspark.sql.pandas.types import to_arrow_type
from pyspark.sql.types import _parse_datatype_json_string


def arrow_type(spark_type: Any) -> pa.DataType:
    """The Arrow type with which Spark receives values of a type (Spark's JSON form)."""
    return to_arrow_type(_parse_datatype_json_string(json.dumps(spark_type)))
