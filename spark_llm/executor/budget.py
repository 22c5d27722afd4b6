"""What a query may take, in tokens and money: checked before it asks, and while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from spark_llm.conf import Settings
from spark_llm.errors import LlmError
from spark_llm.optimizer.engine_profile import Prices
from spark_llm.serving.totals import ClientTotals


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits of one query; None = no limit.

    `tokens` counts prompt tokens, cached ones too, and answer tokens; `cost` is what `prices` make of them.
    """

    tokens: float | None
    cost: float | None
    prices: Prices

    @classmethod
    def of(cls, settings: Settings) -> Budget:
        """The budget of a session.

        Raises
        ------
        LlmError
            `LLM_BAD_CONF` for a limit that is no number, and for a limit of money without prices.
        """
        prompt, cached, output = (_optional(settings, f"price.{name}") for name in ("prompt", "cached", "output"))
        prices = Prices(prompt or 0.0, (prompt or 0.0) if cached is None else cached, output or 0.0)
        budget = cls(_optional(settings, "budget.tokens"), _optional(settings, "budget.cost"), prices)
        if budget.cost is not None and not prices:
            detail = "it needs prices: set spark.llm.price.prompt and spark.llm.price.output"
            raise LlmError("LLM_BAD_CONF", key="spark.llm.budget.cost", value=f"{budget.cost:g}", detail=detail)
        return budget

    def __bool__(self) -> bool:
        return self.tokens is not None or self.cost is not None

    def check_estimate(self, estimate: Mapping[str, float]) -> None:
        """Stop a query before it asks; `estimate` holds `query_tokens` and `query_cost` where they are known."""
        self._check(
            estimate.get("query_tokens"), estimate.get("query_cost"), "is expected to take", "nothing was asked"
        )

    def check(self, totals: ClientTotals) -> None:
        """Stop a query that has taken more than it may, on all hosts as far as they are known."""
        cost = self.prices.cost(totals.prompt, totals.cached, totals.output)
        done = f"{totals.calls} calls were answered before; a result log, where one is set, keeps them"
        self._check(totals.prompt + totals.output, cost, "has taken", done)

    def _check(self, tokens: float | None, cost: float | None, verb: str, done: str) -> None:
        for key, found, limit in (("tokens", tokens, self.tokens), ("cost", cost, self.cost)):
            if limit is not None and found is not None and found > limit:
                amount = f"{found:.0f} tokens" if key == "tokens" else f"a cost of {found:.6g}"
                raise LlmError(
                    "LLM_BUDGET", verb=verb, amount=amount, key=f"spark.llm.budget.{key}", limit=f"{limit:g}", done=done
                )


def _optional(settings: Settings, name: str) -> float | None:
    return settings.number(name) if settings.text(name) else None
