"""Refuse calls that would be evaluated more than once with different answers."""

from __future__ import annotations

from spark_llm.optimizer.calls import is_deterministic, is_llm_call
from spark_llm.optimizer.errors import InvalidCall
from sqlglot import exp

_PLACES: dict[type, str] = {exp.Join: "JOIN ON", exp.Group: "GROUP BY", exp.Order: "ORDER BY"}


def check_places(tree: exp.Expr) -> exp.Expr:
    """Check that sampled calls without a seed stand in no JOIN ON, GROUP BY or ORDER BY.

    Raises
    ------
    InvalidCall
        `LLM_NONDETERMINISTIC_HERE`, with the place.
    """
    for call in filter(is_llm_call, tree.find_all(exp.Anonymous)):
        place = call.find_ancestor(*_PLACES, exp.Query)
        if not is_deterministic(call) and type(place) in _PLACES:
            function, name = call.name.lower(), _PLACES[type(place)]
            raise InvalidCall(condition="LLM_NONDETERMINISTIC_HERE", function=function, place=name)
    return tree
