"""Per-client totals: what a query has had answered so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spark_llm.serving.core import RowError, Usage

FIRST_ERRORS = 5


@dataclass(frozen=True, slots=True)
class ClientTotals:
    """What one client (a query) has had answered so far, by all of its tasks on this host.

    `calls` counts finished requests, shared ones too; `errors` those without an answer, `first_errors` a few
    of their messages; `prompt`, of these `cached`, and `output` are the tokens that were asked for it.
    """

    calls: int = 0
    errors: int = 0
    first_errors: tuple[str, ...] = ()
    prompt: int = 0
    cached: int = 0
    output: int = 0


def add_totals(
    totals: ClientTotals, calls: int, errors: Sequence[RowError], usage: Sequence[Usage] = ()
) -> ClientTotals:
    """`totals` after `calls` more calls, these errors and this work; the first few messages are kept."""
    first = totals.first_errors
    if errors and len(first) < FIRST_ERRORS:
        first = (*first, *(f"{error.condition}: {error.message}" for error in errors))[:FIRST_ERRORS]
    return ClientTotals(
        totals.calls + calls,
        totals.errors + len(errors),
        first,
        totals.prompt + sum(one.prompt for one in usage),
        totals.cached + sum(one.cached for one in usage),
        totals.output + sum(one.output for one in usage),
    )
