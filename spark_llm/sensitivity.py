"""Whether a model's answers depend on the order in which it reads the fields."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spark_llm.errors import LlmError
from spark_llm.optimizer.core import CallSpec
from spark_llm.session import route_of, settings

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


@dataclass(frozen=True, slots=True)
class OrderSensitivity:
    """How one call answers a sample of its rows in two field orders.

    `written` and `planned` name the fields in both orders; of `rows` that both orders answered, the share `agreement`
    has equal answers; `errors` rows had none in one of them.
    """

    call: str
    written: tuple[str, ...]
    planned: tuple[str, ...]
    rows: int
    agreement: float
    errors: int


def order_sensitivity(df: DataFrame, n: int = 100) -> list[OrderSensitivity]:
    """Ask a sample of every call of a query in the fields' written and in their planned order, and compare.

    Where the answers differ too much, write `field_order => 'fixed'` in the call.

    Parameters
    ----------
    df : DataFrame
        A query of a classic session; it is planned, but not run.
    n : int
        Distinct rows to ask per call, twice each; at most `spark.llm.planner.sampleRows`.

    Returns
    -------
    list of OrderSensitivity
        One per call whose arguments could be sampled.

    Raises
    ------
    LlmError
        `LLM_NEEDS_CLASSIC` over Spark Connect, `LLM_EXTENSION_MISSING` where the extension does not plan the query.
    ValueError
        `n` is not positive.

    Examples
    --------
    >>> spark_llm.order_sensitivity(spark.sql("SELECT llm('Good?', review, movie) FROM t"), n=50)  # doctest: +SKIP
    """
    if n < 1:
        msg = f"n must be at least 1, got {n}"
        raise ValueError(msg)
    frame: Any = df
    if not hasattr(frame, "_jdf"):
        raise LlmError("LLM_NEEDS_CLASSIC", function="order_sensitivity")
    if route_of(frame.sparkSession) != "extension":
        raise LlmError("LLM_EXTENSION_MISSING", settings=" ".join(f"--conf {k}={v}" for k, v in settings().items()))
    asked = frame.sparkSession._jvm.io.sparkllm.catalyst.report.OrderSensitivity.ask(frame._jdf.queryExecution(), n)
    return [_compared(call) for call in json.loads(asked)]


def _compared(call: dict[str, Any]) -> OrderSensitivity:
    spec = CallSpec.from_json(json.dumps(call["spec"]))
    pairs = [
        (json.loads(a or "{}").get("v"), json.loads(b or "{}").get("v"))
        for a, b in zip(call["written"], call["planned"], strict=True)
    ]
    answered = [(a, b) for a, b in pairs if a is not None and b is not None]
    agreement = sum(a == b for a, b in answered) / len(answered) if answered else 1.0
    fields = tuple(field.name for field in spec.fields)
    planned = tuple(fields[i] for i in spec.plan.order) if spec.plan else fields
    name = f"{spec.function}({spec.instruction})"
    return OrderSensitivity(name, fields, planned, len(answered), agreement, len(pairs) - len(answered))
