"""Budgets of tokens and money."""

from __future__ import annotations

import pyarrow as pa
import pytest
from spark_llm.optimizer.core import CallPlan, CallSpec, Field
from spark_llm.serving.totals import ClientTotals

from spark_llm.conf import Settings
from spark_llm.errors import LlmError
from spark_llm.executor.budget import Budget
from spark_llm.executor.runner import CallRunner
from spark_llm.executor.spending import Spending
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


def test_hosts_count_together(tmp_path):
    """Two hosts, and a driver that brings each what the other has told."""
    folders = tmp_path / "a", tmp_path / "b"
    one, other = (Spending(folder, "app-1", "7") for folder in folders)
    budget = Budget.of(Settings({"spark.llm.budget.tokens": "150"}))
    for folder in folders:
        (folder / "spent").mkdir(parents=True)
    assert one.everywhere(ClientTotals(prompt=80, cached=30, output=20)).prompt == 80
    told = (folders[0] / "spent" / "app-1@7.here").read_text()
    assert told == "80 30 20"
    (folders[1] / "spent" / "app-1@7.elsewhere").write_text(told)
    here = ClientTotals(calls=4, prompt=30, output=10)
    both = other.everywhere(here)
    assert (both.calls, both.prompt, both.cached, both.output) == (4, 110, 30, 30)
    budget.check(both)
    budget.check(here)
    more = ClientTotals(calls=5, prompt=45, output=10)
    with pytest.raises(LlmError, match="has taken 155 tokens"):
        budget.check(other.everywhere(more))
    other = Spending(folders[1], "app-1", "7")
    other.everywhere(more)
    assert other.before() == ClientTotals(prompt=125, cached=30, output=30), "so a second attempt asks nothing"
    with pytest.raises(LlmError, match="has taken"):
        budget.check(other.before())


def test_a_new_worker_of_a_host_takes_nothing_back(tmp_path):
    spending = Spending(tmp_path, "app", "1")
    spending.everywhere(ClientTotals(prompt=50))
    Spending(tmp_path, "app", "1").everywhere(ClientTotals(prompt=10))
    assert spending.before().prompt == 50
