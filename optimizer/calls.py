"""LLM calls in a syntax tree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeGuard

from spark_llm.optimizer.core import function_table
from spark_llm.optimizer.literals import literal_value
from sqlglot import exp


def is_llm_call(node: exp.Expr) -> TypeGuard[exp.Anonymous]:
    """Whether a node is a call of one of the LLM functions (and not of a namesake in a schema)."""
    if not isinstance(node, exp.Anonymous) or (isinstance(node.parent, exp.Dot) and node.arg_key == "expression"):
        return False
    return node.name.lower() in function_table()["functions"]


def has_llm_call(node: exp.Expr) -> bool:
    """Whether there is an LLM call in the node, subqueries included."""
    return any(map(is_llm_call, node.find_all(exp.Anonymous)))


def own_calls(node: exp.Expr) -> Iterator[exp.Anonymous]:
    """The LLM calls in a node, outer before inner, without those of subqueries."""
    for inner in node.walk(prune=lambda other: other is not node and isinstance(other, exp.Query)):
        if is_llm_call(inner):
            yield inner


def is_deterministic(call: exp.Anonymous) -> bool:
    """Whether a call gives the same answer each time; what is no literal counts as it would be refused later."""
    options = {a.name.lower(): a.expression for a in call.expressions if isinstance(a, exp.Kwarg)}
    if "seed" in options or "temperature" not in options:
        return True
    try:
        return literal_value(options["temperature"]) == 0
    except ValueError:
        return False
