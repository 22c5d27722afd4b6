"""The Python worker's memory does not grow with the table."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import pyarrow as pa
from spark_llm.executor.udf import bind
from spark_llm.optimizer.core import CallSpec, Field

rows, width = int(sys.argv[1]), 1000
conf = {"spark.llm.engine": "stub", "spark.llm.placement": "inprocess", "spark.llm.window.rows": "1000"}
spec = CallSpec("llm", "Q", (Field("a"), Field("b")), {}, "string", conf)

def batches():
    for start in range(0, rows, 1000):
        texts = [f"{i} " + "x" * width for i in range(start, start + 1000)]
        yield pa.array(texts), pa.array([str(start)] * 1000)

answered = sum(len(piece) for piece in bind(spec.to_json())(batches()))
assert answered == rows
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def peak_mib(rows: int) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(rows)], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.slow
def test_ten_times_the_rows_in_the_same_memory():
    small, large = peak_mib(10_000), peak_mib(100_000)
    assert large <= small + 25, (small, large)
