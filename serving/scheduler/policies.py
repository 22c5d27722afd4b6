"""The policies by the names that settings use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from spark_llm.serving.scheduler.cost import Cost
from spark_llm.serving.scheduler.dlpm import QUANTUM, DeficitLongestPrefixMatch
from spark_llm.serving.scheduler.lpm import LongestPrefixMatch
from spark_llm.serving.scheduler.policy import FirstComeFirstServed, Policy
from spark_llm.serving.scheduler.rpm import RequestsPerMinute
from spark_llm.serving.scheduler.vtc import VirtualTokenCounter

POLICIES: dict[str, Callable[..., Policy]] = {
    "dlpm": DeficitLongestPrefixMatch,
    "fcfs": FirstComeFirstServed,
    "lpm": LongestPrefixMatch,
    "rpm": RequestsPerMinute,
    "vtc": VirtualTokenCounter,
}
DEFAULT_POLICY = "dlpm"


def create_policy(
    name: str = DEFAULT_POLICY,
    *,
    quantum: float = QUANTUM,
    requests_per_minute: int = 600,
    predict: bool = False,
    cost: Cost | None = None,
) -> Policy:
    """A policy by name; what does not concern it is ignored.

    Raises
    ------
    KeyError
        For an unknown name.
    """
    own: dict[str, dict[str, Any]] = {"dlpm": {"quantum": quantum}, "rpm": {"limit": requests_per_minute}}
    return POLICIES[name](cost=cost, predict=predict, **own.get(name, {}))
