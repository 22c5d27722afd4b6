"""The rendered cells of a column as Arrow keeps them, and how far two of them begin alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

PREFIX = 32
"""Beginnings are compared so far."""


class Texts:
    """k texts that all begin with `label`, which is stored once.

    Parameters
    ----------
    label : str
    parts : sequence of Arrow arrays of strings, all of one type
        What the texts hold behind the label; a table's own chunks, where rendering leaves its values as they are.
    places : unsigned int array of shape (k,)
        Where each of them stands in `parts`, counted through.
    """

    def __init__(self, label: str, parts: Sequence[pa.Array], places: npt.NDArray[np.unsignedinteger]) -> None:
        self.label = label
        self._parts = list(parts)
        self._places = places
        self._starts = np.cumsum([0, *map(len, parts)])
        self._heads = list(map(_Heads, parts))

    def take(self, numbers: npt.NDArray[np.integer]) -> Texts:
        """Some of the texts; what they hold is not copied."""
        return Texts(self.label, self._parts, self._places[numbers])

    def tolist(self) -> list[str]:
        """The texts with their label."""
        values = pa.chunked_array(self._parts, self._parts[0].type if self._parts else pa.string())
        return [self.label + text for text in values.take(pa.array(self._places)).to_pylist()]

    def common(self, left: npt.NDArray[np.integer], right: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
        """The leading bytes, up to PREFIX, that each of some texts shares with another behind the label.

        Parameters
        ----------
        left, right : int arrays of shape (n,)
            Texts by number.
        """
        (heads, sizes), (others, limits) = self._looked_up(left), self._looked_up(right)
        return np.minimum(leading_equal(heads, others), np.minimum(sizes, limits))

    def _looked_up(self, numbers: npt.NDArray[np.integer]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.integer]]:
        """PREFIX bytes from the start of each text, whatever follows it if it is shorter, and its bytes."""
        places = self._places[numbers]
        if len(self._heads) == 1:
            return self._heads[0].at(places)
        heads, sizes = np.empty((len(places), PREFIX), np.uint8), np.empty(len(places), np.int64)
        part = np.searchsorted(self._starts, places, side="right") - 1
        for number in np.unique(part):
            here = np.flatnonzero(part == number)
            heads[here], sizes[here] = self._heads[number].at(places[here] - self._starts[number])
        return heads, sizes


class _Heads:
    """The beginnings of an array of strings, read where they lie."""

    def __init__(self, texts: pa.Array) -> None:
        _, offsets, data = texts.buffers()
        wide = np.int64 if pa.types.is_large_string(texts.type) else np.int32
        self._offsets = np.frombuffer(offsets or bytes(8), wide)[texts.offset : texts.offset + len(texts) + 1]
        end = int(self._offsets[-1])
        self._safe = max(end - PREFIX, 0)  # from there on fewer than PREFIX bytes may follow: a padded copy
        rest = (data.slice(self._safe, end - self._safe).to_pybytes() if data else b"") + bytes(PREFIX)
        self._body, self._rest = _windows(data or b"", self._safe), _windows(rest, end - self._safe + 1)

    def at(self, places: npt.NDArray[np.integer]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.integer]]:
        begin = self._offsets[places]
        late = begin >= self._safe
        heads = np.empty(len(begin), f"V{PREFIX}")
        heads[late], heads[~late] = self._rest[begin[late] - self._safe], self._body[begin[~late]]
        return heads.view(np.uint8).reshape(-1, PREFIX), self._offsets[places + 1] - begin


def _windows(data: bytes | pa.Buffer, count: int) -> npt.NDArray[np.void]:
    """PREFIX bytes from each of the first `count` bytes on."""
    return np.ndarray((count,), f"V{PREFIX}", memoryview(data) if count else bytes(PREFIX), strides=(1,))


def leading_equal(left: npt.NDArray[np.integer], right: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
    """The leading columns in which the rows of two matrices are equal."""
    differs = left != right
    return np.where(differs.any(axis=1), differs.argmax(axis=1), differs.shape[1])
