"""The value of a constant SQL expression."""

from __future__ import annotations

from typing import Any

from sqlglot import exp


def literal_value(node: exp.Expr) -> Any:
    """str, bool, int, float, None or a list of these.

    Raises
    ------
    ValueError
        The expression is no literal.

    Examples
    --------
    >>> from sqlglot import parse_one
    >>> [literal_value(parse_one(text)) for text in ("'a'", "-2", "0.5", "true", "array('x', 'y')")]
    ['a', -2, 0.5, True, ['x', 'y']]
    """
    match node:
        case exp.Literal() | exp.RawString() if node.is_string or isinstance(node, exp.RawString):
            return node.name
        case exp.Literal():
            return int(node.name) if node.is_int else float(node.name)
        case exp.Boolean():
            return bool(node.this)
        case exp.Null():
            return None
        case exp.Neg() if isinstance(node.this, exp.Literal) and not node.this.is_string:
            return -literal_value(node.this)
        case exp.Array():
            return [literal_value(item) for item in node.expressions]
        case exp.Paren():
            return literal_value(node.this)
        case exp.Concat():
            return "".join(map(_text, node.expressions))
        case exp.DPipe():
            return _text(node.this) + _text(node.expression)
    msg = f"{type(node).__name__} is no literal"
    raise ValueError(msg)


def _text(node: exp.Expr) -> str:
    if isinstance(value := literal_value(node), str):
        return value
    msg = f"{type(node).__name__} is no text"
    raise ValueError(msg)
