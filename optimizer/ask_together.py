"""Several predicates of WHERE, or one under a LIMIT, as one call that the executor asks by rank and stops early."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from spark_llm.optimizer.answer_test import answer_test
from spark_llm.optimizer.calls import has_llm_call
from spark_llm.optimizer.core import Test
from spark_llm.optimizer.literals import literal_value
from spark_llm.optimizer.lower_calls import lower_call
from sqlglot import exp

ALL, FIRST = "llm_all", "llm_first"
"""The registered functions: a conjunction; and one that answers true for so many rows of a task at most."""

_BLOCKING = ("group", "having", "qualify", "distinct", "order", "sort", "cluster", "distribute", "laterals", "match")


def ask_together(tree: exp.Expr, reasons: list[str], *, several: bool = True, early: bool = True) -> exp.Expr:
    """Put the predicates of a WHERE that ask into one function, in place.

    `llm_all(terms, struct, ...)` is true where every term passes. `llm_first(terms, keep, struct, ...)` as well, but
    only for as many rows of a task as the LIMIT above wants, and only among those where `keep`, the cheap conjuncts,
    holds: so the rows it answers are rows of the result.

    Parameters
    ----------
    reasons : list of str
        Gets why a rewrite was not applied.
    several, early : bool
        Whether predicates are asked together, and whether they stop at a LIMIT.
    """
    for select in list(tree.find_all(exp.Select)):
        where = select.args.get("where")
        if where is None or not has_llm_call(where.this):
            continue
        conjuncts = list(where.this.flatten(unnest=False)) if isinstance(where.this, exp.And) else [where.this]
        cheap = [c for c in conjuncts if not has_llm_call(c)]
        asking = [c for c in conjuncts if has_llm_call(c)]
        terms = [(c, term) for c in asking if (term := _term(c)) is not None]
        if len(terms) < len(asking) and (len(asking) > 1 or _rows(select)):
            reasons.append("a predicate is asked apart: it is not a comparison of one answer with constants")
        rest = [c for c in asking if all(c is not one for one, _ in terms)]
        against = _against_early(select, cheap, rest)
        rows = _rows(select) if early and not against else None
        if early and against and _rows(select):
            reasons.append(f"no early stop at the LIMIT: {against}")
        if terms and (rows or (several and len(terms) > 1)):
            together = terms if several else terms[:1]
            rest += [c for c, _ in terms[len(together) :]]
            rows = rows if not rest else None
            if rows is None and len(together) < 2:
                continue
            call = _call([term for _, term in together], rows, cheap)
            select.set("where", exp.Where(this=exp.and_(*cheap, call, *rest, copy=False, wrap=False)))
    return tree


def _term(predicate: exp.Expr) -> tuple[dict[str, Any], exp.Expr] | None:
    """The constant part of a term as JSON, and its struct of fields; None where it cannot be one."""
    if (found := answer_test(predicate)) is None or not found[0].expressions:
        return None
    call, test = found
    if any(has_llm_call(argument) for argument in call.expressions):
        return None
    lowered = lower_call(call)
    struct = next((a for a in lowered.expressions if isinstance(a, exp.Struct)), None)
    if struct is None or not struct.expressions:
        return None
    try:
        constants = [literal_value(a) for a in lowered.expressions if a is not struct]
    except ValueError:  # the prompt varies by row
        return None
    return _json(call.name.lower(), constants, test), struct


def _json(function: str, constants: Sequence[Any], test: Test) -> dict[str, Any]:
    return {"function": function, "constants": list(constants), "test": [test[0], list(test[1])]}


def _rows(select: exp.Select) -> int | None:
    """How many rows LIMIT and OFFSET make of this query."""
    limit, offset = select.args.get("limit"), select.args.get("offset")
    parts = [part.expression for part in (limit, offset) if part]
    if limit is None or not all(isinstance(part, exp.Literal) and part.is_int for part in parts):
        return None
    return sum(int(part.name) for part in parts) or None


def _against_early(select: exp.Select, cheap: Sequence[exp.Expr], rest: Sequence[exp.Expr]) -> str | None:
    """Why a row that passes may not be a row of the result."""
    if any(select.args.get(part) for part in _BLOCKING):
        return "the query groups, sorts or removes rows after WHERE"
    if any(p.find(exp.AggFunc, exp.Window, exp.Explode, exp.Posexplode, exp.Inline) for p in select.selects):
        return "the query groups, sorts or removes rows after WHERE"
    if rest:
        return "another predicate that asks acts after it"
    if any(c.find(exp.Query, exp.Rand, exp.Anonymous) for c in cheap):
        return "another predicate may act after it"
    return None


def _call(terms: Sequence[tuple[dict[str, Any], exp.Expr]], rows: int | None, cheap: Sequence[exp.Expr]) -> exp.Expr:
    spec: dict[str, Any] = {"terms": [constants for constants, _ in terms]}
    structs = [struct for _, struct in terms]
    if rows is None:
        return exp.Anonymous(this=ALL, expressions=[_text(spec), *structs])
    keep = exp.and_(*(c.copy() for c in cheap)) if cheap else exp.true()
    return exp.Anonymous(this=FIRST, expressions=[_text({**spec, "limit": rows}), keep, *structs])


def _text(spec: dict[str, Any]) -> exp.Expr:
    return exp.Literal.string(json.dumps(spec, ensure_ascii=False))
