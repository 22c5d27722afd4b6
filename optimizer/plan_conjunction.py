"""The plan of a conjunction: how its rows are sorted, and what its terms cost together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from spark_llm.optimizer.core import CallPlan, CallSpec
from spark_llm.optimizer.engine_profile import EngineProfile
from spark_llm.optimizer.plan import InputSize, plan_call


def plan_conjunction(
    spec: CallSpec,
    sample: Sequence[Sequence[str | None]],
    size: InputSize | float | None = None,
    engine: EngineProfile | None = None,
) -> CallPlan:
    """Plan a call with terms: the order of all their fields, and an estimate as if every term were asked about all.

    What the first terms refuse is not asked of the others, so the tokens are an upper bound.

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
    sums = ("prompt_tokens", "cached_tokens", "output_tokens", "tree_tokens", "seconds", "cost")
    total = {name: sum(estimate[name] for estimate in each) for name in sums if name in plan.estimate}
    return replace(plan, estimate={**plan.estimate, **total})
