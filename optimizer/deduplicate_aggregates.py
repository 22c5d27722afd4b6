"""Calls in the arguments of aggregate functions: distinct arguments are asked before the grouping."""

from __future__ import annotations

from spark_llm.optimizer.calls import has_llm_call, is_deterministic, own_calls
from spark_llm.optimizer.catalog import Catalog
from spark_llm.optimizer.field_names import field_names
from spark_llm.optimizer.lineage import table_name
from sqlglot import exp

_EXACT = {"string", "tinyint", "smallint", "int", "bigint", "boolean", "date", "timestamp", "timestamp_ntz"}
"""Types whose values are equal in SQL only if they are the same text to the model."""
_CHANGED = "The input of llm() changed between two reads. SET spark.llm.optimize.deduplicate.enabled=false"


def deduplicate_aggregates(tree: exp.Expr, catalog: Catalog, reasons: list[str]) -> exp.Expr:
    """Ask what aggregate functions ask about a table once for each distinct tuple of arguments, in place.

    The answers are joined to the table's rows by null-safe equality. Only over one table, whose columns have types that
    are equal where they read the same. What is not done leaves its reason.
    """
    number = 0
    for select in list(tree.find_all(exp.Select)):
        asked = [call for p in (*select.selects, select.args.get("having")) if p for call in own_calls(p)]
        inside = [call for call in asked if (agg := call.find_ancestor(exp.AggFunc)) and agg.parent_select is select]
        for call in dict.fromkeys(inside):
            if reason := _reason_against(call, select, catalog):
                reasons.append(f"asked for every row of a group: {reason}")
                continue
            number += 1
            _ask_distinct(select, call, number)
    return tree


def _reason_against(call: exp.Anonymous, select: exp.Select, catalog: Catalog) -> str | None:
    source = select.args.get("from_")
    relation = source.this if source else None
    if not isinstance(relation, exp.Table) or not isinstance(relation.this, exp.Identifier):
        return "its input is no table"
    if any(projection.is_star for projection in select.selects):
        return "a star would show what is added"
    if any(select.args.get(part) for part in ("laterals", "pivots", "sample")) or any(
        relation.args.get(part) for part in ("joins", "laterals", "pivots", "sample", "when")
    ):
        return "its input is more than a table"
    if select.args.get("joins") and not all(_is_ours(join) for join in select.args["joins"]):
        return "its input is a join"
    table = catalog(table_name(relation))
    if table is None or table.view:
        return "its input is no table"
    if not is_deterministic(call) or any(own_calls(inner) for inner in call.expressions if has_llm_call(inner)):
        return "its answers are sampled or depend on other calls"
    types = {name.lower(): kind.lower() for name, kind in table.columns.items()}
    columns = list(call.find_all(exp.Column))
    if not columns or any(types.get(column.name.lower()) not in _EXACT for column in columns):
        return "equal values of its fields may read differently"
    where = select.args.get("where")
    if where and (has_llm_call(where) or where.find(exp.Query, exp.Rand, exp.Anonymous)):
        return "WHERE is not a plain condition"
    return None


def _is_ours(join: exp.Expr) -> bool:
    return join.this.alias_or_name.startswith("__llm_answers_")


def _ask_distinct(select: exp.Select, call: exp.Anonymous, number: int) -> None:
    relation, answers = select.args["from_"].this, f"__llm_answers_{number}"
    columns = list(dict.fromkeys(call.find_all(exp.Column)))
    bare = {column: exp.column(column.name) for column in columns}
    keys = {column: f"__llm_key_{i + 1}" for i, column in enumerate(columns)}
    distinct = exp.select(*(bare[c].copy() for c in dict.fromkeys(columns))).distinct().from_(relation.copy())
    if where := select.args.get("where"):
        distinct = distinct.where(where.this.copy())
    outputs = [exp.alias_(bare[column].copy(), key) for column, key in keys.items()]
    asked = exp.select(*outputs, exp.alias_(_named(call), "__llm_answer"), exp.alias_(exp.true(), "__llm_asked"))
    same = [exp.NullSafeEQ(this=c.copy(), expression=exp.column(key, answers)) for c, key in keys.items()]
    select.join(
        asked.from_(distinct.subquery("__llm_distinct")).subquery(answers),
        on=exp.and_(*(_qualified(condition, relation.alias_or_name) for condition in same)),
        join_type="left",
        copy=False,
    )
    changed = exp.Anonymous(this="raise_error", expressions=[exp.Literal.string(_CHANGED)])
    value = exp.If(this=exp.column("__llm_asked", answers), true=exp.column("__llm_answer", answers), false=changed)
    for same_call in [c for c in own_calls(select) if c == call and c.find_ancestor(exp.AggFunc)]:
        same_call.replace(value.copy())


def _named(call: exp.Anonymous) -> exp.Expr:
    """The call over the distinct columns, its fields under the names that they had."""
    copied = call.copy()
    first = 1 if call.name.lower() in ("llm", "llm_filter") else 0
    last = -1 if call.name.lower() in ("llm_classify", "llm_extract") else None
    positional = [a for a in copied.expressions if not isinstance(a, exp.Kwarg)]
    fields = positional[first:last]
    for field, name in zip(fields, field_names(fields), strict=True):
        if not isinstance(field, exp.Alias) and not (isinstance(field, exp.Column) and field.name == name):
            field.replace(exp.alias_(field.copy(), name, quoted=True))
    for column in list(copied.find_all(exp.Column)):
        column.set("table", None)
    return copied


def _qualified(condition: exp.Expr, relation: str) -> exp.Expr:
    column = condition.this
    if not column.table:
        column.set("table", exp.to_identifier(relation))
    return condition
