"""Rendering without a JVM agrees with Spark's `to_json`."""

from __future__ import annotations

import json
import random

import numpy as np
import pyarrow as pa
import pytest

from spark_llm.errors import LlmError
from spark_llm.executor.render import render_column

SELECT = """
SELECT CAST(id AS INT) i, id * 1000003 l, id / 7 d, CAST(pow(10, id % 40 - 20) / 3 AS FLOAT) f,
  pow(10, id % 40 - 20) / 7 e, CAST(id / 8 AS DECIMAL(12, 4)) m,
  id % 2 = 0 b, date_add(DATE'1999-12-30', CAST(id AS INT)) dt,
  timestamp_seconds(id * 86399 + 0.125) ts, CAST(timestamp_seconds(id * 86399 + 0.125) AS TIMESTAMP_NTZ) tn,
  array(id, NULL, id + 1) a,
  named_struct('x', id, 'y', CAST(NULL AS STRING), 'z', array(named_struct('q', 'é"' || id))) s,
  map('k' || id, id * 0.5D, 'n', NULL) mp, CAST(NULL AS INT) n, -0.0D z, CAST('NaN' AS DOUBLE) nan
FROM range(80)
"""


def same_text(ours: str, javas: str) -> bool:
    """Equal, or the same number with digits that Java before 19 prints beyond the shortest form."""
    if ours == javas:
        return True
    return "E" in javas and len(javas) > len(ours) and np.float32(ours) == np.float32(javas)


@pytest.mark.spark
def test_equals_to_json(spark):
    frame = spark.sql(SELECT)
    table = frame.toArrow()
    for name in frame.columns:
        wrapped = spark.sql(
            f"SELECT to_json(named_struct('v', {name}), map('ignoreNullFields', 'false')) j FROM ({SELECT})"
        ).collect()
        expected = [row.j.removeprefix('{"v":').removesuffix("}") for row in wrapped]
        _, rendered = render_column(name, table[name].combine_chunks())
        ours = ["null" if v is None else v for v in rendered.to_pylist()]
        assert [o for o, e in zip(ours, expected, strict=True) if not same_text(o, e)] == [], name


def test_doubles_round_trip():
    rng = random.Random(5)
    values = [rng.uniform(-1, 1) * 10 ** rng.randint(-300, 300) for _ in range(2000)] + [
        0.001,
        1e7,
        9999999.999,
        5e-324,
    ]
    _, rendered = render_column("d", pa.array(values))
    assert [json.loads(text) for text in rendered.to_pylist()] == values
    _, floats = render_column("f", pa.array(np.float32(np.clip(values, -3e38, 3e38))))
    assert all("." in text or "Infinity" in text for text in floats.to_pylist())


@pytest.mark.parametrize(
    "column",
    [pa.array([b"x"]), pa.array([{"a": [b"x"]}]), pa.array([[("k", b"x")]], pa.map_(pa.string(), pa.binary()))],
)
def test_binary_is_refused_wherever_it_hides(column):
    with pytest.raises(LlmError, match=r"LLM_BINARY_FIELD.*'payload'"):
        render_column("payload", column)
