"""Predicates that only compare one call's answer with constants."""

from __future__ import annotations

from typing import Any

from spark_llm.optimizer.calls import is_deterministic, is_llm_call
from spark_llm.optimizer.core import Test
from spark_llm.optimizer.ddl import parse_ddl
from spark_llm.optimizer.literals import literal_value
from sqlglot import exp

_ORDER: dict[type, tuple[str, str]] = {
    exp.LT: ("<", ">"),
    exp.LTE: ("<=", ">="),
    exp.GT: (">", "<"),
    exp.GTE: (">=", "<="),
}
_INTEGERS = {"byte", "short", "integer", "long"}


def answer_test(predicate: exp.Expr) -> tuple[exp.Anonymous, Test] | None:
    """The call and the test that its answer must pass; None for any other predicate.

    Examples
    --------
    >>> import sqlglot
    >>> call, test = answer_test(sqlglot.parse_one("llm_classify(r, array('a', 'b')) <> 'a'"))
    >>> call.name, test
    ('llm_classify', ('not in', ('a',)))
    """
    node = predicate.unnest()
    if is_llm_call(node):
        return (node, ("in", (True,))) if _kind(node) == "boolean" else None
    if isinstance(node, exp.Not) and is_llm_call(inner := node.this.unnest()):
        return (inner, ("in", (False,))) if _kind(inner) == "boolean" else None
    if isinstance(node, exp.Not) and isinstance(node.this.unnest(), exp.In):
        found = answer_test(node.this)
        return (found[0], ("not in", found[1][1])) if found else None
    if isinstance(node, exp.In) and is_llm_call(node.this) and not node.args.get("query"):
        return _compared(node.this, "in", node.expressions)
    if isinstance(node, exp.EQ | exp.NEQ):
        name = "in" if isinstance(node, exp.EQ) else "not in"
        return _sides(node, name, name)
    if type(node) in _ORDER:
        found = _sides(node, *_ORDER[type(node)])
        return found if found and _kind(found[0]) in _INTEGERS else None
    return None


def _sides(node: exp.Expr, forward: str, backward: str) -> tuple[exp.Anonymous, Test] | None:
    left, right = node.this.unnest(), node.expression.unnest()
    if is_llm_call(left):
        return _compared(left, forward, [right])
    return _compared(right, backward, [left]) if is_llm_call(right) else None


def _compared(call: exp.Anonymous, name: str, nodes: list[exp.Expr]) -> tuple[exp.Anonymous, Test] | None:
    try:
        values = tuple(map(literal_value, nodes))
    except ValueError:
        return None
    kinds: dict[Any, type] = {"boolean": bool, "string": str, **dict.fromkeys(_INTEGERS, int)}
    accepted = kinds.get(_kind(call))
    return (call, (name, values)) if all(type(value) is accepted for value in values) else None


def _kind(call: exp.Anonymous) -> Any:
    """The type of a call's answer, None where the call cannot be a term."""
    named = {a.name.lower(): a.expression for a in call.expressions if isinstance(a, exp.Kwarg)}
    reports = "on_error" in named and named["on_error"].name.lower() == "struct"
    if not is_deterministic(call) or reports or call.name.lower() == "llm_extract":
        return None
    if "returns" in named:
        try:
            return parse_ddl(literal_value(named["returns"]))
        except ValueError:
            return None
    return "boolean" if call.name.lower() == "llm_filter" else "string"
