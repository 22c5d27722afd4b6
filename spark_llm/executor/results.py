"""The bound function's answer column: STRUCT<value, error, usage>, one entry per input row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from spark_llm.errors import redact
from spark_llm.serving.core import RowError, Usage

ERROR_TYPE = pa.struct([("condition", pa.string()), ("message", pa.string()), ("attempts", pa.int32())])
USAGE_TYPE = pa.struct([(name, pa.int64()) for name in ("prompt", "cached", "output", "calls", "known")])


@dataclass(frozen=True, slots=True)
class Answer:
    """One distinct tuple's outcome: a value of the result type or an error, and what it cost (None = nothing asked).

    `known`: the result log had it.
    """

    value: Any = None
    error: RowError | None = None
    usage: Usage | None = None
    known: bool = False


NOT_ASKED = Answer()


def result_type(value_type: pa.DataType) -> pa.DataType:
    """The Arrow type of the bound function's result."""
    return pa.struct([("value", value_type), ("error", ERROR_TYPE), ("usage", USAGE_TYPE)])


def result_array(
    answers: Sequence[Answer], payer: np.ndarray, tuple_of: np.ndarray, value_type: pa.DataType
) -> pa.Array:
    """Spread the answers of distinct tuples over their rows.

    Parameters
    ----------
    answers : one per distinct tuple
    payer : bool per row, true on the one row of each tuple that carries its usage
    tuple_of : int64 per row, index into `answers`
    """
    values = pa.array([a.value for a in answers], type=value_type).take(pa.array(tuple_of))
    errors = pa.array([_error_row(a.error) for a in answers], type=ERROR_TYPE).take(pa.array(tuple_of))
    paid = [answers[t].usage if pays else None for t, pays in zip(tuple_of.tolist(), payer.tolist(), strict=True)]
    usage = pa.StructArray.from_arrays(
        [
            pa.array([u.prompt if u else 0 for u in paid], pa.int64()),
            pa.array([u.cached if u else 0 for u in paid], pa.int64()),
            pa.array([u.output if u else 0 for u in paid], pa.int64()),
            pa.array([int(u is not None) for u in paid], pa.int64()),
            pa.array((np.array([a.known for a in answers], dtype=bool)[tuple_of] & payer).astype(np.int64)),
        ],
        fields=list(USAGE_TYPE),
    )
    return pa.StructArray.from_arrays([values, errors, usage], fields=list(result_type(value_type)))


def _error_row(error: RowError | None) -> dict[str, Any] | None:
    return None if error is None else {**asdict(error), "message": redact(error.message)}
