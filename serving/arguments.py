"""Arguments of engines, read into a dataclass of settings: known names, declared types, accepted values."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from typing import Any

from spark_llm.serving.core import EngineFailure

TYPES: dict[str, type] = {"str": str, "bool": bool}
NUMBERS = {"int": "whole number, not negative", "float": "number, not negative"}


def read_arguments(
    cls: type,
    args: Mapping[str, Any],
    refused: Callable[[str, str], EngineFailure],
    *,
    choices: Mapping[str, Collection[str]],
    positive: Collection[str],
) -> dict[str, Any]:
    """Arguments of `cls`, numbers converted to the type of their field.

    Parameters
    ----------
    refused : callable
        The failure for an argument's name and what is wrong with it.
    choices : mapping
        Accepted values by name.
    positive : collection of str
        Numbers that may not be 0; none may be negative.

    Raises
    ------
    EngineFailure
        What `refused` makes of the first argument that is not usable.
    """
    kinds = {field.name: str(field.type) for field in fields(cls)}
    values = {}
    for name, value in args.items():
        if name not in kinds:
            raise refused(name, f"unknown setting '{name}'; accepted: {', '.join(kinds)}")
        if not _fits(value, kind := kinds[name]):
            wanted = NUMBERS.get(kind) or TYPES.get(kind, dict).__name__
            raise refused(name, f"'{name}' must be a {wanted}")
        if name in choices and value not in choices[name]:
            raise refused(name, f"'{name}' must be one of {', '.join(choices[name])}")
        if name in positive and not value:
            raise refused(name, f"'{name}' must be positive")
        values[name] = {"int": int, "float": float}[kind](value) if kind in NUMBERS else value
    return values


def _fits(value: object, kind: str) -> bool:
    if kind not in NUMBERS:
        return isinstance(value, TYPES.get(kind, Mapping))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return value >= 0 and (kind == "float" or value % 1 == 0)
