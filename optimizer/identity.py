"""The identity of an answer: what two rows must have in common to share one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
from spark_llm.optimizer.columns import Strings, array_elements
from spark_llm.optimizer.prompts import Prompt

_NULL, _VALUE, _MULTISET = b"\0", b"\1", b"\2"


@dataclass(frozen=True, slots=True)
class IdentityRule:
    """How a row's identity is computed from the argument columns, here as in the JVM (`AnswerIdentity.scala`).

    It is the sha256 of `base` and then, for each of `fields`: a byte 0 for NULL, else a byte 1, the number of bytes (8,
    big-endian) and the UTF-8 bytes of the value. Of an array in `unordered` it is a byte 2 and the same of its
    elements' JSON texts, sorted and joined by newlines.

    Attributes
    ----------
    base : bytes
        The sha256 of what the engine is told for every row: constant text, constraint, sampling, names of the fields.
        The model is not in it.
    fields : tuple of int
        Indices of the argument columns: by name, or as written under `field_order => 'fixed'`.
    unordered : frozenset of int
        Those of them that are arrays without order.
    """

    base: bytes
    fields: tuple[int, ...]
    unordered: frozenset[int]

    @classmethod
    def of(cls, prompt: Prompt) -> IdentityRule:
        """The rule of a call, whatever its plan."""
        spec = prompt.spec
        names = [f.name for f in spec.fields]
        fields = list(range(len(names)))
        if not spec.fixed_order:
            fields.sort(key=lambda i: names[i])
        template = [part if isinstance(part, str) else [names[part]] for part in prompt.head]
        own = [[names[i], spec.fields[i].kind, i in prompt.unordered] for i in fields]
        asked = [dict(prompt.call, call_id=""), spec.options.get("seed"), spec.fixed_order, template, own]
        base = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).digest()
        return cls(base, tuple(fields), prompt.unordered)

    def identities(self, columns: Sequence[Strings], rows: int) -> list[bytes]:
        """The identity of each row, 32 bytes.

        Parameters
        ----------
        columns : sequence of Arrow strings
            The argument columns in the order of the call's fields, as Spark hands them over.
        rows : int
            Their length; it counts where there is no column.
        """
        parts = [self._parts(columns[i], i in self.unordered) for i in self.fields]
        if not parts:
            return [hashlib.sha256(self.base).digest()] * rows
        return [hashlib.sha256(self.base + b"".join(row)).digest() for row in zip(*parts, strict=True)]

    def _parts(self, column: Strings, unordered: bool) -> list[bytes]:
        values = column.cast(pa.large_binary())
        values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
        encoded = values.dictionary_encode(null_encoding="encode")
        part = _array if unordered else _text
        parts = [_NULL if value is None else part(value) for value in encoded.dictionary.to_pylist()]
        return list(map(parts.__getitem__, encoded.indices.to_pylist()))


def _text(value: bytes, mark: bytes = _VALUE) -> bytes:
    return mark + len(value).to_bytes(8, "big") + value


def _array(value: bytes) -> bytes:
    elements = array_elements(value.decode())
    return _text("\n".join(elements).encode(), _MULTISET) if elements else _text(value)


def row_seed(identity: bytes) -> int:
    """The seed of a row's sampling, 63 bits: the identity covers the call's seed and the row's arguments."""
    return int.from_bytes(identity[:8], "big") >> 1
