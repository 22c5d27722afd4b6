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
from spark_llm.optimizer.element_order import order_elements
from spark_llm.optimizer.prompts import Prompt

Strings: TypeAlias = pa.Array | pa.ChunkedArray

PREFIX = 32
"""Beginnings are compared so far."""

_decoder = json.JSONDecoder(strict=False)
_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a window of n rows with k distinct values.

    Attributes
    ----------
    codes : int64 array of shape (n,)
        Each row's value. Codes are ranks: sorting by code sorts by value (UTF-8 bytes, NULL last).
    lengths : float64 array of shape (k,)
        Characters of each rendered cell.
    prefixes : int array of shape (k, p)
        What a cell begins with after its label: bytes, or the elements of an unordered array by number. At most PREFIX
        of them count when two different cells share their beginning.
    steps : float64 array of shape (k, p)
        Characters of each of these.
    label : int
        Characters with which every cell of the column begins.
    pieces : list of k tuples of str
        The rendered cell, whole or (an unordered array) by element, without the separator that follows it.
    canonical : list of k str
        What identifies the cell: equal for arrays that are equal up to the order of their elements.
    """

    codes: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.float64]
    prefixes: npt.NDArray[np.integer]
    steps: npt.NDArray[np.float64]
    label: int
    pieces: list[tuple[str, ...]]
    canonical: list[str]


def encode(values: Strings, label: str, render: Callable[[str | None], str]) -> Column:
    """Encode a STRING column; `render` is called once per distinct value, and its text follows the label."""
    codes, distinct = _ranked(values)
    texts = [label + render(value) for value in distinct]
    heads = np.array([text[len(label) : len(label) + PREFIX].encode() for text in texts], dtype=f"S{PREFIX}")
    prefixes = heads.view(np.uint8).reshape(len(texts), PREFIX)
    return Column(
        codes, _lengths(texts), prefixes, np.broadcast_to(1.0, prefixes.shape), len(label), [(t,) for t in texts], texts
    )


def encode_unordered(values: Strings, label: str) -> Column:
    """Encode a column of JSON arrays whose element order is free: chosen so that the arrays share their beginnings."""
    codes, distinct = _ranked(values)
    multisets = [_elements(value) for value in distinct]
    ordered = iter(order_elements([elements for elements in multisets if elements]))
    cells = [
        _array_pieces(label, next(ordered)) if elements else (label + _unwrap(value),)
        for value, elements in zip(distinct, multisets, strict=True)
    ]
    identical = (label + ("\n".join(elements) or cell[0]) for cell, elements in zip(cells, multisets, strict=True))
    canonical = dict(zip(cells, identical, strict=True))
    pieces = sorted(canonical)
    rank = {cell: i for i, cell in enumerate(pieces)}
    merged = np.fromiter((rank[cell] for cell in cells), dtype=np.int64, count=len(cells))
    prefixes, steps = _pieces_by_number(pieces)
    texts = ["".join(cell) for cell in pieces]
    return Column(
        merged[codes], _lengths(texts), prefixes, steps, len(label), pieces, [canonical[cell] for cell in pieces]
    )


def _pieces_by_number(pieces: list[tuple[str, ...]]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The leading pieces after the label by number, and their lengths; 0 after the end."""
    leading = [cell[1 : PREFIX + 1] for cell in pieces]
    number = {piece: i + 1 for i, piece in enumerate({piece for cell in leading for piece in cell})}
    numbers, steps = np.zeros((len(pieces), PREFIX), np.int64), np.zeros((len(pieces), PREFIX))
    for row, cell in enumerate(leading):
        numbers[row, : len(cell)] = [number[piece] for piece in cell]
        steps[row, : len(cell)] = [len(piece) for piece in cell]
    return numbers, steps


def _lengths(texts: list[str]) -> npt.NDArray[np.float64]:
    """Characters of the cells with the separator that follows each."""
    return np.fromiter((len(text) + 2 for text in texts), dtype=np.float64, count=len(texts))


def _ranked(values: Strings) -> tuple[npt.NDArray[np.int64], list[str | None]]:
    """Each row's code and the sorted distinct values."""
    flat = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    encoded = flat.cast(pa.large_string()).dictionary_encode(null_encoding="encode")
    by_rank = pc.array_sort_indices(encoded.dictionary)
    rank = np.empty(len(by_rank), dtype=np.int64)
    rank[by_rank.to_numpy()] = np.arange(len(by_rank))
    return rank[encoded.indices.to_numpy()], encoded.dictionary.take(by_rank).to_pylist()


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
    label = _to_json(field.name) + ": "
    if index in prompt.unordered:
        return encode_unordered(values, label)
    return encode(values, label, _render_text if field.kind == "text" else _unwrap)


def _render_text(value: str | None) -> str:
    return "null" if value is None else _to_json(value)


def _unwrap(value: str | None) -> str:
    """The JSON text of a value; `to_json` takes no scalars, so values come as `{"v":...}`."""
    if value is None:
        return "null"
    return value[5:-1] if value.startswith('{"v":') and value.endswith("}") else value


def _elements(value: str | None) -> list[str]:
    """The JSON texts of an array's elements as they are, sorted; none for any other value."""
    text = _unwrap(value).strip()
    if not text.startswith("["):
        return []
    elements, start = [], _next(text, 1)
    while text[start] != "]":
        end = _decoder.raw_decode(text, start)[1]  # only its end: parsing and writing again would change numbers
        elements.append(text[start:end])
        start = _next(text, end)
    return sorted(elements)


def _next(text: str, start: int) -> int:
    """Where the next element or the array's end is."""
    while text[start] in ", \t\r\n":
        start += 1
    return start


def _array_pieces(label: str, elements: Sequence[str]) -> tuple[str, ...]:
    """The cell of an array, one line per element."""
    return (label + "[\n", *(element + ",\n" for element in elements[:-1]), elements[-1] + "\n]")


def _head(prompt: Prompt, columns: Sequence[Strings]) -> Column:
    """The text before the object, by row: NULL stands as null."""
    parts = [
        part if isinstance(part, str) else _raw(columns[part], prompt.spec.fields[part].kind == "json")
        for part in prompt.head
    ]
    rows = next(len(part) for part in parts if not isinstance(part, str))
    lines = zip(*([part] * rows if isinstance(part, str) else part for part in parts), strict=True)
    return encode(pa.array(["".join(line) for line in lines], pa.large_string()), "", lambda text: text or "")


def _raw(column: Strings, is_json: bool) -> list[str]:
    return [_unwrap(value) if is_json or value is None else value for value in column.to_pylist()]
