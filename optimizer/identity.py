"""The identity of an answer: what two rows must have in common to share one."""

from __future__ import annotations

import hashlib
import json

from spark_llm.optimizer.columns import Column, Window
from spark_llm.optimizer.prompts import Prompt


def answer_identities(prompt: Prompt, window: Window) -> list[bytes]:
    """The sha256 of each row's question without the model.

    It covers what the engine is told (constant text, constraint, sampling) and the map from field name to rendered
    value, unordered arrays as multisets. The order of the fields counts only under `field_order => 'fixed'`.

    Returns
    -------
    list of bytes
        32 bytes per row of the window.
    """
    spec = prompt.spec
    asked = [dict(prompt.call, call_id=""), spec.options.get("seed"), spec.fixed_order]
    base = hashlib.sha256(json.dumps(asked, sort_keys=True).encode())
    canonical = sorted(
        zip((spec.fields[i].name for i in prompt.cells), window.cells, strict=True), key=lambda pair: pair[0]
    )
    columns = window.cells if spec.fixed_order else tuple(column for _, column in canonical)
    texts = [_texts(column) for column in ((window.head,) if window.head else ()) + columns]
    return [_digest(base, row) for row in zip(*texts, strict=True)] if texts else [base.digest()] * window.rows


def _texts(column: Column) -> list[bytes]:
    distinct = [(text + "\0").encode() for text in column.canonical]
    return [distinct[code] for code in column.codes.tolist()]


def _digest(base: hashlib._Hash, row: tuple[bytes, ...]) -> bytes:
    digest = base.copy()
    digest.update(b"".join(row))
    return digest.digest()


def row_seed(identity: bytes) -> int:
    """The seed of a row's sampling, 63 bits: the identity covers the call's seed and the row's arguments."""
    return int.from_bytes(identity[:8], "big") >> 1
