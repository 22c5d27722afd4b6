"""What Spark's Python worker runs: `bind(spec)` gives the function behind every planned LLM call.

The JVM writes a pickle that names `bind` and carries the CallSpec as JSON, so this module is all that the driver and
the workers must agree on. The bound function is an iterator UDF: eval type 251 (Arrow) from Spark 4.1, 204 (pandas)
before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from spark_llm.executor.conjunction import ConjunctionRunner
from spark_llm.executor.runner import CallRunner
from spark_llm.optimizer.core import CallSpec

if TYPE_CHECKING:
    import pandas as pd


def bind(spec_json: str) -> Callable[[Iterator[Any]], Iterator[Any]]:
    """The function that answers the call described by `spec_json` for an iterator of argument batches."""
    spec = CallSpec.from_json(spec_json)

    def answer(batches: Iterator[Any]) -> Iterator[Any]:
        first = next(batches, None)
        if first is None:
            return
        columns = first if isinstance(first, tuple) else (first,)
        arrow = isinstance(columns[0], pa.Array | pa.ChunkedArray)
        runner = ConjunctionRunner(spec) if spec.terms else CallRunner(spec)
        for result in runner.run(map(_arrow_columns, _chain(first, batches))):
            yield result if arrow else _to_pandas(result)

    return answer


def _chain(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


def _arrow_columns(batch: Any) -> list[pa.Array]:
    columns = batch if isinstance(batch, tuple) else (batch,)
    return [_arrow_column(column) for column in columns]


def _arrow_column(column: Any) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        return column.combine_chunks()
    return column if isinstance(column, pa.Array) else _text(column)


def _text(series: pd.Series) -> pa.Array:
    """Strings or their bytes, which need not be valid UTF-8: the runner gives each such row an error of its own."""
    options = pc.CastOptions(pa.string(), allow_invalid_utf8=True)
    return pc.cast(pa.array(series, type=pa.binary(), from_pandas=True), options=options)


def _to_pandas(result: pa.StructArray) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame({f.name: result.field(i).to_pylist() for i, f in enumerate(result.type)}, dtype=object)
