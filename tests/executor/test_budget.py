"""Budgets of tokens and money."""

from __future__ import annotations

import pyarrow as pa
import pytest
from spark_llm.optimizer.core import CallPlan, CallSpec, Field

from spark_llm.conf import Settings
from spark_llm.errors import LlmError
from spark_llm.executor.budget import Budget
from spark_llm.executor.runner import CallRunner
from tests.conftest import stub_conf

PRICES = {"spark.llm.price.prompt": "1000000", "spark.llm.price.cached": "100000", "spark.llm.price.output": "3000000"}


def run(calls, estimate=None, **conf):
    settings = stub_conf(calls.folder, batch=4) | {f"spark.llm.{k.replace('_', '.')}": v for k, v in conf.items()}
    plan = CallPlan((0,), (), estimate or {})
    spec = CallSpec("llm", "Sum up", (Field("text"),), conf=settings, plan=plan)
    rows = pa.array([f"text {i}" for i in range(100)])
    return sum(len(piece) for piece in CallRunner(spec).run(iter([[rows]])))


def test_a_query_that_will_exceed_its_budget_asks_nothing(calls):
    with pytest.raises(
        LlmError, match=r"is expected to take 900 tokens, more than spark.llm.budget.tokens = 800"
    ) as error:
        run(calls, {"query_tokens": 900.0}, budget_tokens="800")
    assert error.value.condition == "LLM_BUDGET"
    assert calls.count == 0
    assert run(calls, {"query_tokens": 800.0}, budget_tokens="100000") == 100


def test_a_query_that_exceeds_its_budget_stops_there(calls):
    with pytest.raises(LlmError, match="has taken"):
        run(calls, budget_tokens="100")
    assert 0 < calls.count <= 12


def test_money_is_counted_by_prices(calls):
    with pytest.raises(LlmError, match=r"a cost of .*more than spark.llm.budget.cost = 50"):
        run(calls, budget_cost="50", **{k.removeprefix("spark.llm."): v for k, v in PRICES.items()})
    budget = Budget.of(Settings({"spark.llm.budget.cost": "5", **PRICES}))
    assert budget.prices.cost(prompt=10, cached=5, output=2) == 5 + 0.5 + 6
    budget.check_estimate({"query_cost": 5.0})
    with pytest.raises(LlmError, match=r"a cost of 5.1"):
        budget.check_estimate({"query_cost": 5.1})


@pytest.mark.parametrize(("key", "value"), [("budget.tokens", "many"), ("budget.cost", "1"), ("price.output", "x")])
def test_unusable_settings_are_named(key, value):
    with pytest.raises(LlmError, match=f"spark.llm.{key} = '{value}'"):
        Budget.of(Settings({f"spark.llm.{key}": value}))
