"""The plan of one call: its field order with the reasons, and what it is expected to cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa
from spark_llm.optimizer.columns import encode_window
from spark_llm.optimizer.core import CallPlan, CallSpec
from spark_llm.optimizer.estimate import estimate_call
from spark_llm.optimizer.field_order import FieldDependency, choose_field_order
from spark_llm.optimizer.prompts import prepare
from spark_llm.optimizer.statistics import ColumnStatistics, column_statistics


def plan_call(
    spec: CallSpec,
    sample: Sequence[Sequence[str | None]],
    rows: float | None = None,
    dependencies: Sequence[FieldDependency] = (),
) -> CallPlan:
    """Choose a call's field order from a sample of its arguments.

    Parameters
    ----------
    spec : CallSpec
        The call; a plan that it has is not looked at.
    sample : sequence of columns
        Rendered values, one column per field.
    rows : float, optional
        Rows of the whole input; by default those of the sample.
    dependencies : sequence of FieldDependency
        Fields that determine others; the others follow them.

    Raises
    ------
    InvalidCall
        The call is not usable as it is written.

    Examples
    --------
    >>> from spark_llm.optimizer.core import Field
    >>> spec = CallSpec("llm", "Good?", (Field("review"), Field("movie")))
    >>> plan = plan_call(spec, [["fine", "poor", "boring"], ["Alien"] * 3])
    >>> plan.order, plan.reasons
    ((1, 0), ('fields by shared text: movie (1 distinct), review (3 distinct)',))
    """
    spec = replace(spec, plan=None)
    prompt = prepare(spec)
    window = encode_window(prompt, [pa.array(column, pa.large_string()) for column in sample]) if sample else None
    if window is None or not window.rows:
        return CallPlan(tuple(range(len(spec.fields))), ("fields as written: no sample of the input",))
    rows = max(rows or 0, window.rows)
    statistics = column_statistics(window.cells, rows)
    chosen = (
        list(range(len(statistics)))
        if spec.fixed_order
        else choose_field_order(statistics, _of_cells(dependencies, prompt.cells))
    )
    head = [i for i in range(len(spec.fields)) if i not in prompt.cells]
    order = (*head, *(prompt.cells[i] for i in chosen))
    reason = _reason(spec, [(spec.fields[prompt.cells[i]].name, statistics[i]) for i in chosen])
    planned = replace(window, cells=tuple(window.cells[i] for i in chosen))
    order = tuple(range(len(spec.fields))) if spec.fixed_order else order
    return CallPlan(order, (reason,), estimate_call(prompt, planned, rows))


def _of_cells(dependencies: Sequence[FieldDependency], cells: Sequence[int]) -> list[FieldDependency]:
    """Dependencies between fields as those between cells."""
    place = {field: i for i, field in enumerate(cells)}
    known = [(left, right) for left, right in dependencies if all(i in place for i in left)]
    return [(tuple(place[i] for i in left), tuple(place[i] for i in right if i in place)) for left, right in known]


def _reason(spec: CallSpec, fields: Sequence[tuple[str, ColumnStatistics]]) -> str:
    if spec.fixed_order:
        return "fields as written: field_order => 'fixed'"
    return "fields by shared text: " + ", ".join(f"{name} ({column.distinct:.0f} distinct)" for name, column in fields)
