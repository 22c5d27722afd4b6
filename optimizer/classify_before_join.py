"""Joins whose condition compares answers about either side: each side is asked before the join."""

from __future__ import annotations

from collections.abc import Iterator

from spark_llm.optimizer.calls import is_deterministic, own_calls
from spark_llm.optimizer.catalog import Catalog
from spark_llm.optimizer.hide_columns import hide_columns
from spark_llm.optimizer.lineage import source_of
from sqlglot import exp
from sqlglot.optimizer.scope import Scope, traverse_scope


def classify_before_join(tree: exp.Expr, catalog: Catalog, reasons: list[str]) -> exp.Expr:
    """Ask calls of a join's condition that look at one side below the join, in place: n calls instead of n².

    Only where no plain equality between the sides reduces the pairs already. What is not done leaves its reason.

    Examples
    --------
    >>> import sqlglot
    >>> tree = sqlglot.parse_one("SELECT a.id FROM r AS a JOIN r AS b ON llm('Tone?', a.t) = llm('Tone?', b.t)")
    >>> print(classify_before_join(tree, lambda table: None, []).sql(normalize_functions=False, pretty=True))
    SELECT
      a.id
    FROM (
      SELECT
        *,
        llm('Tone?', a.t) AS __llm_side_1
      FROM r AS a
    ) AS a
    JOIN (
      SELECT
        *,
        llm('Tone?', b.t) AS __llm_side_2
      FROM r AS b
    ) AS b
      ON a.__llm_side_1 = b.__llm_side_2
    """
    number = 0
    for scope in traverse_scope(tree):
        select = scope.expression
        if not isinstance(select, exp.Select) or not select.args.get("joins"):
            continue
        for condition in _conditions(select):
            sides = {id(call): _side(call, scope, catalog) for call in own_calls(condition)}
            relations = {side for side in sides.values() if side}
            if len(relations) < 2:
                continue
            if reason := _reason_against(condition, select, scope, catalog, list(sides.values())):
                reasons.append(f"answers are compared after the join: {reason}")
                continue
            inner = {id(node) for call in own_calls(condition) for part in call.expressions for node in own_calls(part)}
            for call in [call for call in own_calls(condition) if id(call) not in inner]:
                number += 1
                _ask_below(select, call, str(sides[id(call)]), f"__llm_side_{number}")
    return tree


def _conditions(select: exp.Select) -> Iterator[exp.Expr]:
    """The conjuncts of join conditions, and of WHERE where no join is an outer one."""
    joins = select.args.get("joins") or ()
    for join in joins:
        yield from _conjuncts(join.args.get("on"))
    if not any(join.side for join in joins) and (where := select.args.get("where")):
        yield from _conjuncts(where.this)


def _conjuncts(condition: exp.Expr | None) -> list[exp.Expr]:
    if condition is None:
        return []
    return list(condition.flatten(unnest=False)) if isinstance(condition, exp.And) else [condition]


def _side(node: exp.Expr, scope: Scope, catalog: Catalog) -> str | None:
    """The one relation of this query that an expression looks at."""
    found = {source_of(column, scope, catalog) for column in node.find_all(exp.Column)}
    names = {source[0] if source and source[1] is scope else None for source in found}
    return names.pop() if len(names) == 1 else None


def _reason_against(
    condition: exp.Expr, select: exp.Select, scope: Scope, catalog: Catalog, sides: list[str | None]
) -> str | None:
    calls = list(own_calls(condition))
    if not all(map(is_deterministic, calls)):
        return "a call is sampled without a seed"
    if None in sides or condition.find(exp.Query):
        return "a call looks at both sides"
    if any(join.args.get("using") or join.method == "NATURAL" for join in select.args["joins"]):
        return "the join has a key"
    if any(_is_key(other, scope, catalog) for other in _conditions(select) if other is not condition):
        return "the join has a key"
    if not all(_is_plain(_relation(select, str(side))) for side in sides):
        return "a side is no plain table or subquery"
    return None


def _is_key(condition: exp.Expr, scope: Scope, catalog: Catalog) -> bool:
    if not isinstance(condition, exp.EQ) or any(own_calls(condition)):
        return False
    sides = [_side(side, scope, catalog) for side in (condition.this, condition.expression)]
    return None not in sides and sides[0] != sides[1]


def _relation(select: exp.Select, name: str) -> exp.Expr | None:
    nodes = [select.args["from_"].this, *(join.this for join in select.args.get("joins") or ())]
    return next((node for node in nodes if node.alias_or_name.lower() == name.lower()), None)


def _is_plain(relation: exp.Expr | None) -> bool:
    if not isinstance(relation, exp.Table | exp.Subquery) or not relation.alias_or_name:
        return False
    return not any(relation.args.get(part) for part in ("joins", "laterals", "pivots", "sample", "when"))


def _ask_below(select: exp.Select, call: exp.Expr, side: str, name: str) -> None:
    relation = _relation(select, side)
    assert relation is not None
    alias = relation.alias_or_name
    below = exp.select(exp.Star(), exp.alias_(call.copy(), name)).from_(relation.copy()).subquery(alias)
    call.replace(exp.column(name, alias))
    relation.replace(below)
    hide_columns(select, [name], alias)
