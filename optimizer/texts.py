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
        The texts behind the label, in pieces.
    """

    def __init__(self, label: str, parts: Sequence[pa.Array]) -> None:
        kind = parts[0].type if parts else pa.string()
        padded = pa.concat_arrays([*parts, pa.array([" " * PREFIX], kind)])  # PREFIX bytes follow the start of any text
        _, offsets, data = padded.buffers()
        self.label = label
        self.values = padded.slice(0, len(padded) - 1)
        self._offsets = np.frombuffer(offsets, np.int64 if pa.types.is_large_string(kind) else np.int32)[: len(padded)]
        self._heads = np.ndarray((self._offsets[-1] + 1,), f"V{PREFIX}", data, strides=(1,))

    def tolist(self) -> list[str]:
        """The texts with their label."""
        return [self.label + text for text in self.values.to_pylist()]

    def common(self, left: npt.NDArray[np.integer], right: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
        """The leading bytes, up to PREFIX, that each of some texts shares with another behind the label.

        Parameters
        ----------
        left, right : int arrays of shape (n,)
            Texts by number.
        """
        common = leading_equal(self._head(left), self._head(right))
        return np.minimum(common, np.minimum(self._bytes(left), self._bytes(right)))

    def _head(self, numbers: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
        """PREFIX bytes from the start of each text, its successors' if it is shorter."""
        return self._heads[self._offsets[numbers]].view(np.uint8).reshape(-1, PREFIX)

    def _bytes(self, numbers: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
        return self._offsets[numbers + np.int32(1)] - self._offsets[numbers]


def leading_equal(left: npt.NDArray[np.integer], right: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
    """The leading columns in which the rows of two matrices are equal."""
    differs = left != right
    return np.where(differs.any(axis=1), differs.argmax(axis=1), differs.shape[1])
