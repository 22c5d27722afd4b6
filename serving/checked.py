"""Dataclasses out of JSON that came over the wire: every value has the type that its field declares."""

from __future__ import annotations

import types
from dataclasses import MISSING, fields
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def from_json_object(cls: type[T], raw: object) -> T:
    """The dataclass `cls` of a JSON object; fields that are dataclasses themselves are read the same way.

    Raises
    ------
    ValueError
        Naming the first part that is unknown, missing or of another type, never its value.
    """
    if not isinstance(raw, dict):
        message = f"{cls.__name__} is no object"
        raise ValueError(message)
    hints = _hints(cls)
    if unknown := sorted(map(str, raw.keys() - hints.keys())):
        message = f"{cls.__name__} has no part {unknown[0]!r}"
        raise ValueError(message)
    required = (f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING)  # type: ignore[arg-type]
    if missing := [name for name in required if name not in raw]:
        message = f"{cls.__name__}.{missing[0]} is missing"
        raise ValueError(message)
    return cls(**{name: _read(f"{cls.__name__}.{name}", value, hints[name]) for name, value in raw.items()})


def _hints(cls: type) -> dict[str, Any]:
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in fields(cls)}


def _read(name: str, value: object, hint: Any) -> Any:
    if hasattr(hint, "__dataclass_fields__"):
        return from_json_object(hint, value)
    if get_origin(hint) is tuple and isinstance(value, list):
        value = tuple(value)
    if not _fits(value, hint):
        message = f"{name} is no {getattr(hint, '__name__', hint)}"
        raise ValueError(message)
    return value


def _fits(value: object, hint: Any) -> bool:
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin is Literal:
        return isinstance(value, str) and value in inner
    if origin in (Union, types.UnionType):
        return any(_fits(value, option) for option in inner)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(item, inner[0]) for item in value)
    if origin is not None:  # Mapping[str, Any]
        return isinstance(value, dict)
    if hint is float:
        return type(value) in (int, float)
    return type(value) is hint
