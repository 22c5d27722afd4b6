"""The bound function's answer column: STRUCT<value, error, usage>, one entry per input row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import tzinfo
from typing import Any

import numpy as np
import pyarrow as pa

from spark_llm.errors import redact
from spark_llm.optimizer.coerce import Misfit, coerce
from spark_llm.optimizer.ddl import SparkType
from spark_llm.serving.core import RowError, Usage

ERROR_TYPE = pa.struct([("condition", pa.string()), ("message", pa.string()), ("attempts", pa.int32())])
USAGE_TYPE = pa.struct([(name, pa.int64()) for name in ("prompt", "cached", "output", "calls", "known")])


@dataclass(frozen=True, slots=True)
class Answer:
    """One distinct tuple's outcome: a value of the result type or an error, and what it cost (None = nothing asked)."""

    value: Any = None
    error: RowError | None = None
    usage: Usage | None = None


NOT_ASKED = Answer()


def result_type(value_type: pa.DataType) -> pa.DataType:
    """The Arrow type of the bound function's result."""
    return pa.struct([("value", value_type), ("error", ERROR_TYPE), ("usage", USAGE_TYPE)])


def result_array(
    known: pa.Array, answers: Sequence[Answer], place: np.ndarray, payer: np.ndarray, tuple_of: np.ndarray
) -> pa.StructArray:
    """Spread the outcomes of distinct tuples over their rows.

    Parameters
    ----------
    known : array of the value type
        Values from the result log.
    answers : sequence of Answer
        The other tuples'.
    place : int64 per distinct tuple
        Index into `known` followed by `answers`.
    payer : bool per row
        True on the one row of each tuple that carries its usage.
    tuple_of : int64 per row
        Index into `place`.
    """
    rows = place[tuple_of]
    index = pa.array(rows)
    values = pa.concat_arrays([known, pa.array([a.value for a in answers], known.type)]).take(index)
    failed = [_error_row(a.error) for a in answers]
    errors = pa.concat_arrays([pa.nulls(len(known), ERROR_TYPE), pa.array(failed, ERROR_TYPE)])
    paid = [(u.prompt, u.cached, u.output, 1, 0) if (u := a.usage) else (0,) * 5 for a in answers]
    counts = np.zeros((len(known) + len(answers), len(USAGE_TYPE)), np.int64)
    counts[: len(known), USAGE_TYPE.get_field_index("known")] = 1
    counts[len(known) :] = np.array(paid, np.int64).reshape(len(answers), len(USAGE_TYPE))
    spread = np.where(payer[:, None], counts[rows], 0).T
    usage = pa.StructArray.from_arrays([pa.array(count) for count in spread], fields=list(USAGE_TYPE))
    return pa.StructArray.from_arrays([values, errors.take(index), usage], fields=list(result_type(known.type)))


def known_values(texts: pa.Array, spark_type: SparkType, value_type: pa.DataType, zone: tzinfo) -> pa.Array:
    """The values that the result log's texts stand for; NULL where there is no text, or it is no value of the type."""
    if spark_type == "string":
        return texts.cast(value_type)
    encoded = texts.dictionary_encode()
    values = [_value(text, spark_type, zone) for text in encoded.dictionary.to_pylist()]
    return pa.array(values, value_type).take(encoded.indices)


def _value(text: str, spark_type: SparkType, zone: tzinfo) -> object:
    try:
        return coerce(text, spark_type, zone)
    except Misfit:
        return None


def _error_row(error: RowError | None) -> dict[str, Any] | None:
    return None if error is None else {**asdict(error), "message": redact(error.message)}
