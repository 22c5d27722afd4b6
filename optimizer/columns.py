"""A window's argument columns, dictionary-encoded and rendered once per distinct value."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, compress
from operator import ne
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from spark_llm.optimizer.element_order import order_elements
from spark_llm.optimizer.prompts import Prompt
from spark_llm.optimizer.texts import PREFIX, Texts, leading_equal

Strings: TypeAlias = pa.Array | pa.ChunkedArray

Codes: TypeAlias = npt.NDArray[np.signedinteger]

_SLICE = 1 << 13
"""So many values are Python objects at a time."""

_OFFSETS = 2**31 - 1
"""Bytes that the 32-bit offsets of Arrow's `string` reach."""

_CHUNKS = 64
"""A column of more is put together first."""

_SEPARATOR = 2
"""Characters that follow a cell."""

_SEEN = 1024
"""Of so many first values the repeated ones say how to encode a column."""

_ESCAPED = 8
"""So much longer a value may be as JSON, with room for its label."""

_AFTER_ELEMENT = ",] \t\r\n"

_decoder = json.JSONDecoder(strict=False)
_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a window of n rows with k distinct values.

    Attributes
    ----------
    codes : signed int array of shape (n,), as narrow as k allows
        Each row's value. Codes are ranks: sorting by code sorts by value (UTF-8 bytes, NULL last).
    lengths : int array of shape (k,), as narrow as they allow
        Characters of each rendered cell, with the separator that follows it.
    reach : int array of shape (k, PREFIX + 1)
        Characters that the first 0, 1, … PREFIX parts of a cell take after its label: bytes, or the elements of an
        unordered array. So many parts count when two different cells share their beginning.
    label : int
        Characters with which every cell of the column begins.
    texts : Texts, optional
        The rendered cells, without the separator.
    parts : int array of shape (k, PREFIX)
        Instead of them, of a column of unordered arrays: the leading elements by number, 0 after the end.
    elements : list of k tuples of str
        And the cells by element.
    multisets : list of k tuples of str
        What then identifies a cell: equal for arrays that are equal up to the order of their elements.
    """

    codes: Codes
    lengths: npt.NDArray[np.integer]
    reach: npt.NDArray[np.integer]
    label: int
    texts: Texts | None
    parts: npt.NDArray[np.int32] | None = None
    elements: Sequence[tuple[str, ...]] = ()
    multisets: Sequence[tuple[str, ...]] = ()

    def part(self, rows: npt.NDArray[np.integer]) -> Column:
        """Some rows of the column, with their values alone."""
        used, codes = np.unique(self.codes[rows], return_inverse=True)
        elements, multisets = ([cells[i] for i in used] if cells else () for cells in (self.elements, self.multisets))
        return replace(
            self,
            codes=codes.astype(_narrow(len(used))),
            lengths=self.lengths[used],
            reach=self.reach[used] if self.reach.strides[0] else self.reach[: len(used)],
            texts=self.texts and self.texts.take(used),
            parts=None if self.parts is None else self.parts[used],
            elements=elements,
            multisets=multisets,
        )

    @property
    def pieces(self) -> Sequence[tuple[str, ...]]:
        """The rendered cells, each whole or (an unordered array) by element."""
        return self.elements if self.texts is None else [(text,) for text in self.texts.tolist()]

    @property
    def rendered(self) -> list[str]:
        """The rendered cells, each whole."""
        return ["".join(cell) for cell in self.elements] if self.texts is None else self.texts.tolist()

    @property
    def canonical(self) -> list[str]:
        """What identifies each of the k cells."""
        if self.texts is not None:
            return self.texts.tolist()
        return [label + "\n".join(elements) for label, *elements in self.multisets]

    def shared(self, left: Codes, right: Codes) -> npt.NDArray[np.integer]:
        """Characters with which each of some cells, by code, begins like another that differs from it."""
        if self.texts is None:
            assert self.parts is not None
            common = leading_equal(self.parts[left], self.parts[right])
        else:
            common = self.texts.common(left, right)
        return np.minimum(self.label + self.reach[left, common], self.lengths[left])


def encode(values: Strings, label: str, render: Callable[[str | None], str]) -> Column:
    """Encode a STRING column; `render` is called once per distinct value, and its text follows the label."""
    column = _encode(values, label, render)
    pa.default_memory_pool().release_unused()  # of the dictionary, which may be as large as the column
    return column


def _encode(values: Strings, label: str, render: Callable[[str | None], str]) -> Column:
    ranked = _ranked(values)
    strings = ranked.chunks[0].type if values.nbytes < _OFFSETS // _ESCAPED else pa.large_string()
    lengths, parts = _render(ranked, render, strings)
    lengths = lengths + len(label) + _SEPARATOR
    lengths = lengths.astype(np.min_scalar_type(lengths.max(initial=0)))
    reach = np.broadcast_to(np.arange(PREFIX + 1), (len(lengths), PREFIX + 1))
    return Column(ranked.codes, lengths, reach, len(label), Texts(label, parts, ranked.places))


def _render(
    ranked: _Ranked, render: Callable[[str | None], str], strings: pa.DataType
) -> tuple[npt.NDArray[np.integer], list[pa.Array]]:
    """Characters of each text, and the arrays that hold them: the values' own, and then those that rendering changes.

    A text that is the value itself is not copied. `ranked.places` is told where the changed ones stand.
    """
    lengths, changed, start = np.empty(len(ranked.places), np.int32), list[pa.Array](), 0
    total = end = sum(map(len, ranked.chunks))
    for chunk in chain.from_iterable(map(_slices, ranked.chunks)):
        ranks = ranked.ranks[start : start + len(chunk)]
        first = np.flatnonzero(ranked.places[ranks] == np.arange(start, start + len(chunk)))  # one of equal values
        start, ranks = start + len(chunk), ranks[first]
        values = chunk.take(pa.array(first)).to_pylist()
        texts = list(map(render, values))
        lengths[ranks] = list(map(len, texts))
        if values != texts:
            differ = np.fromiter(map(ne, values, texts), bool, len(texts))
            changed.append(pa.array(compress(texts, differ), strings))
            ranked.places[ranks[differ]] = np.arange(end, end + len(changed[-1]))
            end += len(changed[-1])
    parts = [pa.concat_arrays(changed)] if changed else []
    if end - total < len(ranked.places):
        return lengths, [*(chunk.cast(strings) for chunk in ranked.chunks), *parts]
    ranked.places[:] -= np.uint32(total)
    return lengths, parts


def _slices(chunk: pa.Array) -> Iterator[pa.Array]:
    return (chunk.slice(start, _SLICE) for start in range(0, len(chunk), _SLICE))


def encode_unordered(values: Strings, label: str) -> Column:
    """Encode a column of JSON arrays whose element order is free: chosen so that the arrays share their beginnings."""
    ranked = _ranked(values)
    distinct = pa.chunked_array(ranked.chunks).take(pa.array(ranked.places)).to_pylist()
    known: dict[str, str] = {}  # one object per element: equal ones are then hashed once and compared by identity
    alike: dict[str, str] = {}
    multisets = [array_elements(value, known, alike) for value in distinct]
    ordered = iter(order_elements([elements for elements in multisets if elements]))
    inner, last = ({element: element + end for element in known} for end in (",\n", "\n]"))
    start = label + "[\n"
    cells = [
        (start, *map(inner.__getitem__, (row := next(ordered))[:-1]), last[row[-1]])
        if elements
        else (label + _unwrap(value),)
        for value, elements in zip(distinct, multisets, strict=True)
    ]
    identical = ((label, *(elements or cell)) for cell, elements in zip(cells, multisets, strict=True))
    canonical = dict(zip(cells, identical, strict=True))
    pieces = sorted(canonical)
    rank = {cell: i for i, cell in enumerate(pieces)}
    merged = np.fromiter((rank[cell] for cell in cells), dtype=np.int32, count=len(cells))
    parts, reach = _pieces_by_number(pieces)
    lengths = np.fromiter((sum(map(len, cell)) + _SEPARATOR for cell in pieces), np.int32, len(pieces))
    identities = [canonical[cell] for cell in pieces]
    return Column(merged[ranked.codes], lengths, reach, len(label), None, parts, pieces, identities)


def _pieces_by_number(pieces: list[tuple[str, ...]]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """The leading pieces after the label by number, 0 after the end, and what the first of them take together."""
    leading = [cell[1 : PREFIX + 1] for cell in pieces]
    number = {piece: i + 1 for i, piece in enumerate({piece for cell in leading for piece in cell})}
    numbers, steps = np.zeros((len(pieces), PREFIX), np.int32), np.zeros((len(pieces), PREFIX + 1), np.int64)
    for row, cell in enumerate(leading):
        numbers[row, : len(cell)] = [number[piece] for piece in cell]
        steps[row, 1 : len(cell) + 1] = [len(piece) for piece in cell]
    return numbers, steps.cumsum(axis=1)


@dataclass(frozen=True, slots=True)
class _Ranked:
    """A column's distinct values by rank: each row's, as `codes`; that of each string in `chunks`, as `ranks`; and the
    place of one of each among these, counted through."""

    codes: Codes
    chunks: Sequence[pa.Array]
    ranks: Codes
    places: npt.NDArray[np.uint32]


def _ranked(values: Strings) -> _Ranked:
    if not pa.types.is_string(values.type) or values.nbytes > _OFFSETS:
        values = values.cast(pa.large_string())
    if isinstance(values, pa.ChunkedArray) and not 0 < values.num_chunks <= _CHUNKS:
        values = values.combine_chunks()  # without a chunk there is no dictionary
    if len(values.slice(0, _SEEN).unique()) > _SEEN // 2:  # a dictionary would take several times the column's memory
        rank = pc.rank(values, sort_keys="ascending", tiebreaker="dense").to_numpy()
        codes = np.empty(len(rank), _narrow(int(rank.max())))
        np.subtract(rank, 1, out=codes, casting="unsafe")
        places = np.empty(int(rank.max()), np.uint32)
        places[codes] = np.arange(len(codes), dtype=np.uint32)
        return _Ranked(codes, values.chunks if isinstance(values, pa.ChunkedArray) else [values], codes, places)
    encoded = values.dictionary_encode(null_encoding="encode")
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    by_rank = pc.array_sort_indices(encoded.dictionary).to_numpy()
    ranks = np.empty(len(by_rank), _narrow(len(by_rank)))
    ranks[by_rank] = np.arange(len(by_rank), dtype=ranks.dtype)
    return _Ranked(ranks[encoded.indices.to_numpy()], [encoded.dictionary], ranks, by_rank.astype(np.uint32))


def _narrow(distinct: int) -> npt.DTypeLike:
    """The smallest type of so many codes."""
    return next(kind for kind in (np.int8, np.int16, np.int32) if distinct <= np.iinfo(kind).max + 1)


@dataclass(frozen=True, slots=True)
class Window:
    """A window's rows: the varying text before the object, if the prompt has any, the object's cells and its end."""

    rows: int
    head: Column | None
    cells: tuple[Column, ...]
    end: str = "\n}"


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
    end = "\n}\n\n" if "closing" in prompt.call else "\n}"
    return Window(rows, _head(prompt, columns) if prompt.head else None, cells, end)


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


def array_elements(
    value: str | None, known: dict[str, str] | None = None, alike: dict[str, str] | None = None
) -> list[str]:
    """The JSON texts of an array's elements as they are, sorted; none for any other value.

    `known` keeps each element once, `alike` the last one by its beginning: mostly it comes again, and is not parsed.
    """
    known, alike = {} if known is None else known, {} if alike is None else alike
    text = _unwrap(value).strip()
    if not text.startswith("["):
        return []
    elements, start = [], _next(text, 1)
    while text[start] != "]":
        head = text[start : start + PREFIX]
        element = alike.get(head, "")
        end = start + len(element)
        if not element or not text.startswith(element, start) or text[end] not in _AFTER_ELEMENT:
            end = _decoder.raw_decode(text, start)[1]  # only its end: parsing and writing again would change numbers
            element = text[start:end]
            alike[head] = element = known.setdefault(element, element)
        elements.append(element)
        start = _next(text, end)
    return sorted(elements)


def _next(text: str, start: int) -> int:
    """Where the next element or the array's end is."""
    while text[start] in ", \t\r\n":
        start += 1
    return start


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
