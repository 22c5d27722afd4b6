"""Which predicates and limits can act before a call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from spark_llm.optimizer.calls import has_llm_call, own_calls
from spark_llm.optimizer.catalog import Catalog
from spark_llm.optimizer.lineage import base_columns
from sqlglot import exp
from sqlglot.optimizer.scope import Scope


@dataclass(frozen=True, slots=True)
class Before:
    """Predicates, as SQL, and a limit that leave the call fewer rows; `early_stop`: rows that are wanted after it."""

    predicates: tuple[str, ...] = ()
    limit: int | None = None
    early_stop: int | None = None


def acting_before(call: exp.Expr, scope: Scope, scopes: Sequence[Scope], catalog: Catalog) -> Before:
    """What can act before `call`: cheap conjuncts of its query and of those over it, join keys, and a LIMIT.

    A predicate of a query above can act first where it looks at no answer and nothing between depends on the set of
    rows (a limit, grouping, window or DISTINCT). A LIMIT can act first where no filter looks at the answer; where only
    filters do, the call can stop early.
    """
    predicates = list(_own(call, scope))
    limit, early = _limits(call, scope)
    at = scope
    while limit is None and early is None and _passes(at) and (over := _only_reader(at, scopes)) is not None:
        conjuncts = _conjuncts(over.expression.args.get("where"))
        cheap = [c for c in conjuncts if not _looks_at_answers(c, over, catalog)]
        predicates += [c for c in cheap if not c.find(exp.Query, exp.Rand)]
        later = [c for c in conjuncts if c not in cheap]
        limit, early = _limits_of(over, filtered=bool(later))
        at = over
    texts = dict.fromkeys(predicate.sql(dialect="spark", normalize_functions=False) for predicate in predicates)
    return Before(tuple(texts), limit, early)


def _looks_at_answers(condition: exp.Expr, scope: Scope, catalog: Catalog) -> bool:
    return any(table == "llm()" for table, _ in base_columns(condition, scope, catalog))


def _own(call: exp.Expr, scope: Scope) -> Iterator[exp.Expr]:
    """The cheap predicates of the call's own query."""
    select = scope.expression
    clause = call.find_ancestor(exp.Where, exp.Having, exp.Qualify, exp.Join, exp.Select)
    kinds: dict[type, tuple[str, ...]] = {exp.Having: ("where", "having"), exp.Qualify: ("where", "having", "qualify")}
    inside = call.find_ancestor(exp.AggFunc) is not None
    everything = ("where",) if inside or not select.args.get("group") else ("where", "having")
    for kind in kinds.get(type(clause), everything):
        yield from (c for c in _conjuncts(select.args.get(kind)) if not has_llm_call(c))
    for join in select.args.get("joins") or ():
        if not join.side and not (isinstance(clause, exp.Join) and clause is not join):
            yield from (c for c in _conjuncts(join.args.get("on")) if not has_llm_call(c))


def _limits(call: exp.Expr, scope: Scope) -> tuple[int | None, int | None]:
    select = scope.expression
    filters = [
        c for kind in ("where", "having", "qualify") for c in _conjuncts(select.args.get(kind)) if has_llm_call(c)
    ]
    filtering = any(inner is call for c in filters for inner in own_calls(c))
    if call.find_ancestor(exp.Order, exp.Group, exp.AggFunc, exp.Window, exp.Join, exp.Query) is not select:
        limit = None
    elif filtering:
        return None, _rows(select) if _passes(scope, limit=False) and not _orders_by_answers(select) else None
    else:
        limit = _rows(select) if not _orders_by_answers(select) and not select.args.get("distinct") else None
    return limit, None


def _limits_of(scope: Scope, *, filtered: bool) -> tuple[int | None, int | None]:
    rows = _rows(scope.expression) if _passes(scope, limit=False) and not scope.expression.args.get("order") else None
    return (None, rows) if filtered else (rows, None)


def _orders_by_answers(select: exp.Expr) -> bool:
    order = select.args.get("order")
    names = {s.alias.lower() for s in getattr(select, "selects", ()) if s.alias and has_llm_call(s)}
    return order is not None and (
        has_llm_call(order) or any(c.name.lower() in names for c in order.find_all(exp.Column))
    )


def _rows(select: exp.Expr) -> int | None:
    limit, offset = select.args.get("limit"), select.args.get("offset")
    parts = [part.expression for part in (limit, offset) if part]
    if limit is None or not all(isinstance(part, exp.Literal) and part.is_int for part in parts):
        return None
    return sum(int(part.name) for part in parts)


def _passes(scope: Scope, *, limit: bool = True) -> bool:
    """Whether each output row stands for one row below."""
    select = scope.expression
    if not isinstance(select, exp.Select):
        return False
    blocking = (
        ("group", "having", "qualify", "distinct", "offset", "limit") if limit else ("group", "qualify", "distinct")
    )
    outputs = [node for s in select.selects for node in s.find_all(exp.AggFunc, exp.Window, exp.Explode)]
    return not any(select.args.get(part) for part in blocking) and not outputs


def _only_reader(scope: Scope, scopes: Sequence[Scope]) -> Scope | None:
    readers = [other for other in scopes for source in other.sources.values() if source is scope]
    single = len(readers) == 1 and len(readers[0].selected_sources) == 1
    return readers[0] if single and isinstance(readers[0].expression, exp.Select) else None


def _conjuncts(clause: exp.Expr | None) -> list[exp.Expr]:
    if clause is None:
        return []
    condition = clause.this if isinstance(clause, exp.Where | exp.Having | exp.Qualify) else clause
    return list(condition.flatten(unnest=False)) if isinstance(condition, exp.And) else [condition]
