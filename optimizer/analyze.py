"""Everything about the LLM calls of a statement that its text and a catalog tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spark_llm.optimizer.acting_before import Before, acting_before
from spark_llm.optimizer.answer_uses import answer_uses
from spark_llm.optimizer.calls import is_deterministic, is_llm_call
from spark_llm.optimizer.catalog import Catalog
from spark_llm.optimizer.dependencies import closure, functional_dependencies
from spark_llm.optimizer.dialect import Spark4
from spark_llm.optimizer.expand_stars import expand_stars
from spark_llm.optimizer.expand_views import expand_views
from spark_llm.optimizer.field_names import field_names
from spark_llm.optimizer.lineage import BaseColumn, base_columns, source_of
from spark_llm.optimizer.literals import literal_value
from spark_llm.optimizer.parse import explain_prefix, parse
from sqlglot import exp
from sqlglot.optimizer.scope import Scope, traverse_scope


@dataclass(frozen=True, slots=True)
class FieldAnalysis:
    """One field: the name that the model sees, its expression, and the columns of tables that it comes from."""

    name: str
    sql: str
    base: frozenset[BaseColumn]


@dataclass(frozen=True, slots=True)
class CallAnalysis:
    """One call of a statement.

    `prompt` is constant text, or None if it varies by row; it is then the first field. `dependencies` are pairs of
    indices into `fields`: rows equal in the first are equal in the second.
    """

    function: str
    prompt: str | None
    fields: tuple[FieldAnalysis, ...]
    options: Mapping[str, Any]
    deterministic: bool
    uses: tuple[str, ...]
    before: Before
    dependencies: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]


def analyze(sql: str, catalog: Catalog) -> tuple[CallAnalysis, ...]:
    """Analyze the LLM calls of a statement, inner queries first.

    Parameters
    ----------
    sql : str
        One statement in Spark SQL.
    catalog : Catalog
        Tables and views that it may name.

    Raises
    ------
    InvalidCall
        `LLM_UNREADABLE_SQL` where it cannot be parsed.

    Examples
    --------
    >>> sql = "SELECT * FROM (SELECT id, llm('Tone?', r) AS x FROM t) WHERE x = 'good' AND id > 3"
    >>> [call] = analyze(sql, lambda table: None)
    >>> call.prompt, call.fields[0].base, call.uses, call.before.predicates
    ('Tone?', frozenset({('t', 'r')}), ('WHERE', 'result'), ('id > 3',))
    """
    tree = expand_views(parse(sql[len(explain_prefix(sql)) :]), catalog)
    tree = expand_stars(tree, catalog)
    scopes = traverse_scope(tree)
    calls = ((call, scope) for scope in scopes for call in scope.find_all(exp.Anonymous) if is_llm_call(call))
    return tuple(_analysis(call, scope, scopes, catalog) for call, scope in calls)


def _analysis(call: exp.Anonymous, scope: Scope, scopes: Sequence[Scope], catalog: Catalog) -> CallAnalysis:
    function = call.name.lower()
    positional = [a for a in call.expressions if not isinstance(a, exp.Kwarg)]
    prompt: str | None = ""
    options = {a.name.lower(): _value(a.expression) for a in call.expressions if isinstance(a, exp.Kwarg)}
    if function in ("llm_classify", "llm_extract") and positional:
        options["choices" if function == "llm_classify" else "returns"] = _value(positional.pop())
    elif positional:
        prompt = value if isinstance(value := _value(positional[0]), str) else None
        positional = positional if prompt is None else positional[1:]
    fields = tuple(
        FieldAnalysis(name, _text(argument.unalias()), base_columns(argument, scope, catalog))
        for name, argument in zip(field_names(positional), positional, strict=True)
    )
    return CallAnalysis(
        function,
        prompt,
        fields,
        options,
        is_deterministic(call),
        answer_uses(call, scope, scopes, catalog),
        acting_before(call, scope, scopes, catalog),
        tuple(_between(positional, scope, catalog)),
    )


def _between(
    arguments: Sequence[exp.Expr], scope: Scope, catalog: Catalog
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Which fields determine which: a field is determined with all columns that it is made of."""
    known = functional_dependencies(scope, catalog)
    needs = [_columns(argument, scope, catalog) for argument in arguments]
    plain = {i: need for i, need in enumerate(needs) if isinstance(arguments[i].unalias(), exp.Column) and need}
    sets: list[tuple[int, ...]] = [(i,) for i in plain]
    sets += [tuple(sorted(i for i in plain if plain[i] & left)) for left, _ in known if len(left) > 1]
    found: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    for left in dict.fromkeys(sets):
        determined = closure(frozenset().union(*(plain[i] for i in left)), known)
        right = tuple(i for i, need in enumerate(needs) if i not in left and need is not None and need <= determined)
        if left and right:
            found.append((left, right))
    return found


def _columns(argument: exp.Expr, scope: Scope, catalog: Catalog) -> frozenset[str] | None:
    """The columns that an argument is a function of, None where that is not known."""
    if argument.find(exp.Rand, exp.Query, exp.Anonymous):
        return None
    found = [source_of(column, scope, catalog) for column in argument.find_all(exp.Column)]
    if any(source is None for source in found):
        return None
    names = zip(found, argument.find_all(exp.Column), strict=True)
    return frozenset(f"{source[0]}.{column.name}".lower() for source, column in names if source)


def _value(node: exp.Expr) -> Any:
    try:
        return literal_value(node)
    except ValueError:
        return None


def _text(node: exp.Expr) -> str:
    return node.sql(dialect=Spark4, normalize_functions=False)
