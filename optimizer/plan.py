"""The plan of one call: its field order with the reasons, and what it is expected to cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from spark_llm.optimizer.columns import Column, Window, encode_window
from spark_llm.optimizer.core import CallPlan, CallSpec
from spark_llm.optimizer.engine_profile import EngineProfile, engine_profile
from spark_llm.optimizer.estimate import estimate_call
from spark_llm.optimizer.field_order import (
    FieldDependency,
    choose_field_order,
    closure,
    declared_field_order,
    exchange_neighbours,
    group_field_order,
    saving_field_order,
)
from spark_llm.optimizer.groups import dense
from spark_llm.optimizer.partitions import partition_fields
from spark_llm.optimizer.prefix_tree import prefix_counts, tree_size
from spark_llm.optimizer.prompts import Prompt, prepare
from spark_llm.optimizer.soft_dependencies import soft_dependencies
from spark_llm.optimizer.statistics import ColumnStatistics, column_statistics, estimate_distinct


@dataclass(frozen=True, slots=True)
class InputSize:
    """How large a call's input is, as far as it was counted.

    `rows`; `distinct` tuples of arguments, with which the sample is one of distinct tuples; `columns`: distinct values
    of each field. `streams`: tasks that will ask at once; `hosts`: engine hosts among which they are spread.
    """

    rows: float = 0.0
    distinct: float | None = None
    columns: tuple[float, ...] | None = None
    streams: int = 1
    hosts: int = 1


def plan_call(
    spec: CallSpec,
    sample: Sequence[Sequence[str | None]],
    size: InputSize | float | None = None,
    dependencies: Sequence[FieldDependency] = (),
    engine: EngineProfile | None = None,
) -> CallPlan:
    """Choose a call's field order from a sample of its arguments.

    Parameters
    ----------
    spec : CallSpec
        The call; a plan that it has is not looked at.
    sample : sequence of columns
        Rendered values, one column per field.
    size : InputSize or float, optional
        What is known of the whole input, or its number of rows alone; by default the sample is all.
    dependencies : sequence of FieldDependency
        Fields that determine others, as far as constraints say; others are found in the sample.
    engine : EngineProfile, optional
        Who will be asked; by default what the session's settings say.

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
    size = size if isinstance(size, InputSize) else InputSize(float(size or 0))
    window = encode_window(prompt, [pa.array(column, pa.large_string()) for column in sample]) if sample else None
    known = _of_cells(dependencies, prompt.cells)
    if window is None or not window.rows:
        return _unsampled(spec, prompt, known)
    return _Planner(spec, prompt, _measured(window, size), engine or engine_profile(spec.conf), known).plan()


def _unsampled(spec: CallSpec, prompt: Prompt, dependencies: Sequence[FieldDependency]) -> CallPlan:
    """The order that declared dependencies alone give, else the one as written."""
    if spec.fixed_order or not any(right for _, right in dependencies):
        return CallPlan(tuple(range(len(spec.fields))), ("fields as written: no sample of the input",))
    order = tuple(prompt.cells[i] for i in declared_field_order(len(prompt.cells), dependencies))
    head = tuple(i for i in range(len(spec.fields)) if i not in prompt.cells)
    names = ", ".join(spec.fields[i].name for i in order)
    return CallPlan((*head, *order), (f"fields by declared dependencies: {names}",))


def _of_cells(dependencies: Sequence[FieldDependency], cells: Sequence[int]) -> list[FieldDependency]:
    """Dependencies between fields as those between cells."""
    place = {field: i for i, field in enumerate(cells)}
    known = [(left, right) for left, right in dependencies if all(i in place for i in left)]
    return [(tuple(place[i] for i in left), tuple(place[i] for i in right if i in place)) for left, right in known]


@dataclass(frozen=True, slots=True)
class _Sample:
    """Distinct tuples, and the size of the input that they come from."""

    window: Window
    size: InputSize
    distinct: float


def _measured(window: Window, size: InputSize) -> _Sample:
    """The distinct tuples of a sample, and how many there are in the whole input."""
    rows = max(size.rows, window.rows)
    columns = (*([window.head] if window.head else []), *window.cells)
    if size.distinct is not None or not columns:
        distinct = max(size.distinct or 1.0, 1.0)
        return _Sample(window, replace(size, rows=max(rows, distinct)), distinct)
    tuples = dense(np.stack([column.codes for column in columns], axis=1))
    first = np.sort(np.unique(tuples, return_index=True)[1])  # the order of the sample is a random one
    head = window.head and _taken(window.head, first)
    unique = Window(len(first), head, tuple(_taken(column, first) for column in window.cells))
    return _Sample(unique, replace(size, rows=rows), estimate_distinct(tuples, rows))


def _taken(column: Column, rows: np.ndarray) -> Column:
    return replace(column, codes=column.codes[rows])


@dataclass(frozen=True, slots=True)
class _Planner:
    spec: CallSpec
    prompt: Prompt
    sample: _Sample
    engine: EngineProfile
    dependencies: Sequence[FieldDependency] = ()

    def plan(self) -> CallPlan:
        window, size = self.sample.window, self.sample.size
        statistics = column_statistics(window.cells, self.sample.distinct, self._known(self.prompt.cells))
        determines = soft_dependencies(window.cells)
        chosen = self._chosen(statistics, determines)
        order = tuple(self.prompt.cells[i] for i in chosen)
        head = tuple(i for i in range(len(self.spec.fields)) if i not in self.prompt.cells)
        planned = replace(window, cells=tuple(window.cells[i] for i in chosen))
        known = None if planned.head else self._known(order)
        estimate = estimate_call(
            self.prompt,
            planned,
            size.rows,
            self.sample.distinct,
            known,
            self.engine,
            max(size.streams // size.hosts, 1),
        )
        fields = partition_fields(planned.cells, max(size.streams, size.hosts)) if order else 0
        whole = tuple(range(len(self.spec.fields))) if self.spec.fixed_order else (*head, *order)
        reasons = [self._reason(chosen, statistics), *self._dependencies(determines), self._row_order(estimate)]
        return CallPlan(
            whole,
            tuple(filter(None, reasons)),
            {**estimate, "partition_fields": len(head) + fields, "row_order": float(self._orders_rows(estimate))},
        )

    def _known(self, fields: Sequence[int]) -> list[float] | None:
        columns = self.sample.size.columns
        return None if columns is None else [columns[field] for field in fields]

    def _chosen(self, statistics: Sequence[ColumnStatistics], determines: Sequence[Sequence[int]]) -> list[int]:
        """The best of a few orders, by the tree of all rows, and what exchanges of neighbours make of it."""
        if self.spec.fixed_order or not statistics:
            return list(range(len(statistics)))
        candidates = (
            choose_field_order(statistics, self.dependencies),
            group_field_order(statistics, determines),
            saving_field_order(statistics),
        )
        return exchange_neighbours(min(candidates, key=self._tree), self._tree)

    def _tree(self, order: Sequence[int]) -> float:
        columns = [self.sample.window.cells[i] for i in order]
        known = self._known([self.prompt.cells[i] for i in order])
        determined = [column in closure(order[:i], self.dependencies) for i, column in enumerate(order)]
        return tree_size(columns, prefix_counts(columns, self.sample.distinct, known, determined))

    def _reason(self, order: Sequence[int], statistics: Sequence[ColumnStatistics]) -> str:
        if self.spec.fixed_order:
            return "fields as written: field_order => 'fixed'"
        named = ((self._name(i), statistics[i].distinct) for i in order)
        return "fields by shared text: " + ", ".join(f"{name} ({distinct:.0f} distinct)" for name, distinct in named)

    def _dependencies(self, determines: Sequence[Sequence[int]]) -> list[str]:
        if self.spec.fixed_order:
            return []
        cells = self.sample.window.cells
        found = {i: [j for j in others if len(cells[j].lengths) > 1] for i, others in enumerate(determines)}
        parts = [
            f"{self._name(i)} determines {', '.join(map(self._name, others))}" for i, others in found.items() if others
        ]
        return ["found in the sample: " + "; ".join(parts)] if parts else []

    def _row_order(self, estimate: dict[str, float]) -> str:
        if self.engine.capacity is None:
            return ""
        fits = "exceed" if self._orders_rows(estimate) else "fit into"
        what = "rows sorted by prefix" if self._orders_rows(estimate) else "rows not sorted"
        return f"{what}: {estimate['tree_tokens']:.0f} prefix tokens {fits} the cache of {self.engine.capacity}"

    def _orders_rows(self, estimate: dict[str, float]) -> bool:
        """Whether the cache could lose a prefix before its last row is asked."""
        return self.engine.capacity is None or estimate["tree_tokens"] > self.engine.capacity

    def _name(self, cell: int) -> str:
        return self.spec.fields[self.prompt.cells[cell]].name
