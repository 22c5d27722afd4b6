"""What tokens cost at a priced server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spark_llm.serving.core import Usage

MILLION = 1e6


@dataclass(frozen=True, slots=True)
class Price:
    """Prices of a million tokens, in any currency; `prompt` of those that were not cached.

    Examples
    --------
    >>> Price(prompt=2.0, cached=0.5, output=8.0).cost(Usage(prompt=1_000_000, cached=400_000, output=100_000))
    2.2
    """

    prompt: float = 0.0
    cached: float = 0.0
    output: float = 0.0

    @classmethod
    def of(cls, args: Mapping[str, Any]) -> Price:
        """The prices among the arguments of an engine."""
        return cls(*(_number(args.get(f"price_{name}")) for name in cls.__dataclass_fields__))

    def cost(self, usage: Usage) -> float:
        fresh = usage.prompt - usage.cached
        return (fresh * self.prompt + usage.cached * self.cached + usage.output * self.output) / MILLION


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
