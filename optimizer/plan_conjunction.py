"""The plan of a conjunction: how its rows are sorted, and what its terms cost together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from spark_llm.optimizer.core import CallPlan, CallSpec
from spark_llm.optimizer.engine_profile import EngineProfile
from spark_llm.optimizer.plan import InputSize, plan_call

PASSING = 0.5
"""Of the rows, what a predicate is expected to pass of which nothing was measured."""


def plan_conjunction(
    spec: CallSpec,
    sample: Sequence[Sequence[str | None]],
    size: InputSize | float | None = None,
    engine: EngineProfile | None = None,
) -> CallPlan:
    """Plan a call with terms: the order of all their fields, and an estimate of what its terms are asked.

    Half of the rows are expected to pass a term (`PASSING`). The term that takes the fewest tokens is asked about all,
    the next about those that passed, and so on; under a limit about no more than bring the rows that are wanted. The
    plan's reasons say so, its estimate has `calls`, the questions in all.

    Parameters
    ----------
    spec, sample, size, engine
        As for `plan_call`.
    """
    plan = plan_call(replace(spec, terms=()), sample, size, engine=engine)
    if not plan.estimate:
        return plan
    calls = [replace(term.call, conf=spec.conf) for term in spec.terms]
    samples = [[sample[column] for column in term.columns] for term in spec.terms]
    each = [
        plan_call(call, columns, size, engine=engine).estimate for call, columns in zip(calls, samples, strict=True)
    ]
    begun, total = _begun(spec, plan.estimate["rows"]), dict[str, float]()
    for place, estimate in enumerate(sorted(each, key=_tokens)):
        for name, value in _asked(estimate, begun * PASSING**place).items():
            total[name] = total.get(name, 0.0) + value
    reasons = tuple(filter(None, (*plan.reasons, _reason(spec, begun))))
    return replace(plan, reasons=reasons, estimate={**plan.estimate, **total})


def _tokens(estimate: Mapping[str, float]) -> float:
    return estimate["prompt_tokens"] - estimate["cached_tokens"] + estimate["output_tokens"]


def _begun(spec: CallSpec, rows: float) -> float:
    """The part of the rows about which the first term is asked."""
    if not spec.limit:
        return 1.0
    return min(spec.limit / PASSING ** len(spec.terms) / max(rows, 1.0), 1.0)


def _asked(estimate: Mapping[str, float], part: float) -> dict[str, float]:
    """What a call takes about a part of the rows; each tuple of arguments is asked once."""
    rows, distinct = max(estimate["rows"], 1.0), estimate["distinct"]
    asked = min(part * rows, distinct) if part < 1 else distinct
    share = asked / max(distinct, 1.0)
    sums = ("prompt_tokens", "cached_tokens", "output_tokens", "tree_tokens")
    found = {name: float(round(share * estimate[name])) for name in sums}
    return {"calls": float(round(asked)), **found} | {
        name: share * estimate[name] for name in ("seconds", "cost") if name in estimate
    }


def _reason(spec: CallSpec, begun: float) -> str:
    parts = [f"of the rows, {PASSING:.0%} are expected to pass each predicate"] if len(spec.terms) > 1 else []
    if begun < 1:
        parts.append(f"LIMIT {spec.limit} is expected to stop after {begun:.1%} of the rows")
    return "; ".join(parts)
