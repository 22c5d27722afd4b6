"""A window's argument columns, dictionary-encoded and rendered once per distinct value."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from spark_llm.optimizer.prompts import Prompt

Strings: TypeAlias = pa.Array | pa.ChunkedArray

PREFIX = 32
"""Bytes of a value that count when two different values share their beginning."""

_encode_string = json.JSONEncoder(ensure_ascii=False).encode


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a window of n rows with k distinct values.

    Attributes
    ----------
    codes : int64 array of shape (n,)
        Each row's value. Codes are ranks: sorting by code sorts by value (UTF-8 bytes, NULL last).
    lengths : float64 array of shape (k,)
        Characters of each rendered cell.
    prefixes : uint8 array of shape (k, PREFIX)
        The first bytes of each cell after its label, padded with zeros.
    label : int
        Characters with which every cell of the column begins.
    pieces : list of k tuples of str
        The rendered cell, whole or (an unordered array) by element, without the separator that follows it.
    """

    codes: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.float64]
    prefixes: npt.NDArray[np.uint8]
    label: int
    pieces: list[tuple[str, ...]]


def encode(values: Strings, label: str, render: Callable[[str | None], tuple[str, ...]]) -> Column:
    """Encode a STRING column; each distinct value is rendered once, and its first piece gets the label before it."""
    flat = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    encoded = flat.cast(pa.large_string()).dictionary_encode(null_encoding="encode")
    by_rank = pc.array_sort_indices(encoded.dictionary)
    rank = np.empty(len(by_rank), dtype=np.int64)
    rank[by_rank.to_numpy()] = np.arange(len(by_rank))
    distinct = encoded.dictionary.take(by_rank)
    pieces = [(label + first, *rest) for first, *rest in map(render, distinct.to_pylist())]
    lengths = np.fromiter((sum(map(len, cell)) + 2 for cell in pieces), dtype=np.float64, count=len(pieces))
    return Column(rank[encoded.indices.to_numpy()], lengths, _prefixes(pieces, len(label)), len(label), pieces)


def _prefixes(pieces: list[tuple[str, ...]], label: int) -> npt.NDArray[np.uint8]:
    heads = [cell[0][label : label + PREFIX].encode() for cell in pieces]
    return np.array(heads, dtype=f"S{PREFIX}").view(np.uint8).reshape(len(pieces), PREFIX)


@dataclass(frozen=True, slots=True)
class Window:
    """A window's rows: the varying text before the object, if the prompt has any, and the object's cells."""

    rows: int
    head: Column | None
    cells: tuple[Column, ...]


def encode_window(prompt: Prompt, columns: Sequence[Strings]) -> Window:
    """Encode the argument columns of a call, given in the order of `prompt.spec.fields`.

    Raises
    ------
    ValueError
        The number of columns differs from the number of fields.

    Examples
    --------
    >>> from spark_llm.optimizer.core import CallSpec, Field
    >>> from spark_llm.optimizer.prompts import prepare
    >>> prompt = prepare(CallSpec("llm", "Sum up.", (Field("review"), Field("year", "json"))))
    >>> window = encode_window(prompt, [pa.array(["good", None]), pa.array(['{"v":1999}', "2001"])])
    >>> [column.pieces for column in window.cells]
    [[('"review": "good"',), ('"review": null',)], [('"year": 2001',), ('"year": 1999',)]]
    """
    if len(columns) != len(prompt.spec.fields):
        msg = f"a window must have one column per field ({len(prompt.spec.fields)}), got {len(columns)}"
        raise ValueError(msg)
    cells = tuple(_encode_cell(prompt, i, columns[i]) for i in prompt.cells)
    rows = len(columns[0]) if columns else 0
    return Window(rows, _head(prompt, columns) if prompt.head else None, cells)


def _encode_cell(prompt: Prompt, index: int, values: Strings) -> Column:
    field = prompt.spec.fields[index]
    ordered = _render_text if field.kind == "text" else _render_json
    render = _render_unordered if index in prompt.unordered else ordered
    return encode(values, _encode_string(field.name) + ": ", render)


def _render_text(value: str | None) -> tuple[str, ...]:
    return ("null" if value is None else _encode_string(value),)


def _render_json(value: str | None) -> tuple[str, ...]:
    return (_unwrap(value),)


def _unwrap(value: str | None) -> str:
    """The JSON text of a value; `to_json` takes no scalars, so values come as `{"v":...}`."""
    if value is None:
        return "null"
    return value[5:-1] if value.startswith('{"v":') and value.endswith("}") else value


def _render_unordered(value: str | None) -> tuple[str, ...]:
    """An array's elements in one canonical order, each on a line of its own."""
    array = json.loads(text := _unwrap(value))
    if not isinstance(array, list) or not array:
        return (text,)
    elements = sorted(json.dumps(element, ensure_ascii=False, separators=(",", ":")) for element in array)
    return ("[\n", *(element + ",\n" for element in elements[:-1]), elements[-1] + "\n]")


def _head(prompt: Prompt, columns: Sequence[Strings]) -> Column:
    """The text before the object, by row: NULL stands as null."""
    parts = [
        part if isinstance(part, str) else _raw(columns[part], prompt.spec.fields[part].kind == "json")
        for part in prompt.head
    ]
    rows = next(len(part) for part in parts if not isinstance(part, str))
    lines = zip(*([part] * rows if isinstance(part, str) else part for part in parts), strict=True)
    return encode(pa.array(["".join(line) for line in lines], pa.large_string()), "", lambda text: (text or "",))


def _raw(column: Strings, is_json: bool) -> list[str]:
    return [_unwrap(value) if is_json or value is None else value for value in column.to_pylist()]
