"""What is known of the tables of a statement: columns, keys and functional dependencies."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from spark_llm.optimizer.errors import InvalidCall

Dependency = tuple[frozenset[str], frozenset[str]]
"""Determinants and what they determine: rows that are equal in the first are equal in the second."""


@dataclass(frozen=True, slots=True)
class Table:
    """One table or view.

    Parameters
    ----------
    columns : mapping
        From a column's name to its type in SQL, '' where it is not known.
    keys : sequence of sets of columns
        Primary key and UNIQUE constraints.
    dependencies : sequence of Dependency
        Declared functional dependencies.
    view : str
        The query of a view, '' for a table.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    keys: tuple[frozenset[str], ...] = ()
    dependencies: tuple[Dependency, ...] = ()
    view: str = ""


Catalog = Callable[[str], Table | None]
"""From a table's name, as written in the statement, to what is known of it; None if that is nothing."""


def declared_tables(text: str) -> dict[str, Table]:
    """The tables of the setting `spark.llm.dependencies`.

    Parameters
    ----------
    text : str
        A JSON object from a table's name to its dependencies; `*` is all columns, so that a key is `id -> *`.

    Raises
    ------
    InvalidCall
        `LLM_BAD_CONF` for any other text.

    Examples
    --------
    >>> declared_tables('{"movies": ["id -> *", "title, year -> genre"]}')["movies"].keys
    (frozenset({'id'}),)
    """
    try:
        declared = json.loads(text or "{}")
        return {name.lower(): _table([_sides(line) for line in lines]) for name, lines in declared.items()}
    except (ValueError, AttributeError, TypeError):
        detail = 'it must be a JSON object such as {"movies": ["id -> *", "title -> genre"]}'
        raise InvalidCall(condition="LLM_BAD_CONF", key="spark.llm.dependencies", value=text, detail=detail) from None


def _table(sides: list[Dependency]) -> Table:
    keys = tuple(left for left, right in sides if "*" in right)
    named = dict.fromkeys((name for left, right in sides for name in sorted(left | right) if name != "*"), "")
    return Table(named, keys, tuple(side for side in sides if "*" not in side[1]))


def _sides(line: str) -> Dependency:
    left, right = line.split("->")
    return _names(left), _names(right)


def _names(text: str) -> frozenset[str]:
    names = frozenset(name.strip().strip("`").lower() for name in text.split(","))
    if "" in names:
        raise ValueError
    return names
