"""Turn LLM calls into calls of the registered plain functions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from spark_llm.optimizer.calls import is_llm_call
from spark_llm.optimizer.core import function_table
from spark_llm.optimizer.ddl import parse_ddl, to_ddl
from spark_llm.optimizer.errors import InvalidCall
from spark_llm.optimizer.field_names import field_names
from spark_llm.optimizer.literals import literal_value
from spark_llm.optimizer.options import check_options, malformed
from spark_llm.optimizer.schema import json_schema
from sqlglot import exp


def lower_calls(tree: exp.Expr) -> exp.Expr:
    """Rewrite every call in place to `llm(prompt, struct(review AS review, ...)[, '{"option": ...}'])`.

    `llm_filter` has the same arguments, `llm_classify` has `struct, labels`, `llm_extract` has `struct, ddl` and stands
    inside `from_json`, as does `llm` with `returns`.

    Raises
    ------
    InvalidCall
        A call that is malformed, or an option that is unknown, no literal, or out of its range.

    Examples
    --------
    >>> import sqlglot
    >>> tree = sqlglot.parse_one("SELECT llm('Sum up.', review, t.title AS name, max_tokens => 64) FROM t", "spark")
    >>> lower_calls(tree).sql("spark", normalize_functions=False)
    'SELECT llm(\\'Sum up.\\', STRUCT(review AS review, t.title AS name), \\'{"max_tokens": 64}\\') FROM t'
    """
    for call in reversed([node for node in tree.find_all(exp.Anonymous, bfs=True) if is_llm_call(node)]):
        call.replace(_typed(lower_call(call), call))
    return tree


def lower_call(call: exp.Anonymous) -> exp.Anonymous:
    """The call of the registered function, whose answer is BOOLEAN, STRING or JSON text."""
    function = call.name.lower()
    positional = [a for a in call.expressions if not isinstance(a, exp.Kwarg)]
    options = _options(function, [a for a in call.expressions if isinstance(a, exp.Kwarg)])
    leading, fields, trailing = _split(function, positional)
    own = {"llm_classify": "choices", "llm_extract": "returns"}.get(function)
    check_options(function, options | ({own: _constant(function, trailing[0])} if own else {}))
    _check_supported(function, options)
    names = field_names(fields)
    _check_names(function, options, names)
    members = [
        exp.PropertyEQ(this=exp.to_identifier(n), expression=f.unalias()) for n, f in zip(names, fields, strict=True)
    ]
    arguments = [*leading, exp.Struct(expressions=members), *trailing]
    if options:
        arguments.append(exp.Literal.string(json.dumps(options, ensure_ascii=False)))
    return exp.Anonymous(this=function, expressions=arguments)


def _options(function: str, named: Sequence[exp.Kwarg]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    accepted = function_table()["functions"][function]["options"]
    for argument in named:
        name = argument.name.lower()
        if name in options:
            raise malformed(function, f"option '{name}' is given twice")
        if name not in accepted:
            raise InvalidCall(
                condition="LLM_UNKNOWN_OPTION", function=function, option=name, accepted=", ".join(accepted)
            )
        options[name] = _constant(function, argument.expression, name)
    return options


def _constant(function: str, node: exp.Expr, option: str = "") -> Any:
    try:
        return literal_value(node)
    except ValueError:
        if not option:
            raise malformed(function, "its last positional argument must be constant") from None
    doc = function_table()["options"][option]["doc"]
    shape = f"the expression {type(node).__name__}"
    raise InvalidCall(
        condition="LLM_BAD_OPTION", function=function, option=option, expected="a literal", actual=shape, doc=doc
    )


def _split(function: str, positional: list[exp.Expr]) -> tuple[list[exp.Expr], list[exp.Expr], list[exp.Expr]]:
    """Prompt, fields, and labels or schema."""
    if function in ("llm_classify", "llm_extract"):
        if len(positional) < 2:
            raise malformed(function, "it has no field")
        return [], positional[:-1], positional[-1:]
    if not positional:
        raise malformed(function, "the prompt is missing")
    prompt, *fields = positional
    if fields and prompt.find(exp.Column):
        constant, varying = _constant_head(prompt)
        return [exp.Literal.string(constant)], [varying, *fields], []
    return [prompt], fields, []


def _constant_head(prompt: exp.Expr) -> tuple[str, exp.Expr]:
    """The leading constant text of a prompt that varies beside fields, and the rest, which is a field like them."""
    pieces = list(_pieces(prompt))
    first = next(i for i, piece in enumerate(pieces) if piece.find(exp.Column))
    rest = pieces[first:]
    varying = rest[0] if len(rest) == 1 else exp.Concat(expressions=rest, safe=True)
    return "".join(str(literal_value(piece)) for piece in pieces[:first]), varying


def _pieces(prompt: exp.Expr) -> list[exp.Expr]:
    if isinstance(prompt, exp.Paren):
        return _pieces(prompt.this)
    if isinstance(prompt, exp.DPipe):
        return _pieces(prompt.this) + _pieces(prompt.expression)
    if isinstance(prompt, exp.Concat):
        return [inner for piece in prompt.expressions for inner in _pieces(piece)]
    return [prompt]


def _check_supported(function: str, options: Mapping[str, Any]) -> None:
    if options.get("on_error") == "struct":
        expected, doc = (
            "'null' or 'fail' without the extension",
            "on_error => 'struct' needs the extension in the session.",
        )
        raise InvalidCall(
            condition="LLM_BAD_OPTION",
            function=function,
            option="on_error",
            expected=expected,
            actual="'struct'",
            doc=doc,
        )


def _check_names(function: str, options: Mapping[str, Any], names: Sequence[str]) -> None:
    for name in options.get("unordered", ()):
        if name not in names:
            accepted = ", ".join(names)
            raise InvalidCall(
                condition="LLM_UNKNOWN_FIELD", function=function, option="unordered", field=name, accepted=accepted
            )


def _typed(lowered: exp.Anonymous, call: exp.Anonymous) -> exp.Expr:
    """The call with its own type: the registered functions give JSON text for all but STRING and BOOLEAN answers."""
    function = call.name.lower()
    named = {a.name.lower(): a.expression for a in call.expressions if isinstance(a, exp.Kwarg)}
    positional = [a for a in call.expressions if not isinstance(a, exp.Kwarg)]
    node = positional[-1] if function == "llm_extract" else named.get("returns")
    ddl = literal_value(node) if node is not None else "STRING"
    try:
        json_schema(parsed := parse_ddl(ddl))
    except ValueError as error:
        raise malformed(function, str(error)) from None
    if parsed == "string":
        return lowered
    if isinstance(parsed, str):  # from_json reads no scalars
        record = exp.Concat(expressions=[exp.Literal.string('{"v":'), lowered, exp.Literal.string("}")], safe=True)
        return exp.Dot(this=_from_json(record, f"v {to_ddl(parsed)}"), expression=exp.to_identifier("v"))
    return _from_json(lowered, ddl)


def _from_json(text: exp.Expr, ddl: str) -> exp.Expr:
    return exp.Anonymous(this="from_json", expressions=[text, exp.Literal.string(ddl)])
