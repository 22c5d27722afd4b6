"""What identifies a model: a hash of what decides its answers, without reading all of its weights."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import BinaryIO

MAX_HEADER_BYTES = 100_000_000
"""Of a safetensors file, by its format."""
STRIP_BYTES, STRIPS = 4096, 8
"""Of each tensor so many strips of so many bytes are read, evenly spread: another training run changes all of them."""


def model_identity(directory: Path) -> str:
    """Hash of a model directory: configuration, tokenizer and template by content, weights by samples of each tensor.

    Two directories with the same content have the same identity, wherever they lie.
    """
    digest = hashlib.sha256()
    for file in sorted(p for p in directory.iterdir() if p.suffix in {".json", ".jinja"}):
        digest.update(f"{file.name}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    for file in sorted(directory.glob("*.safetensors")):
        with file.open("rb") as stream:
            digest.update(f"{file.name}\0{file.stat().st_size}\0".encode() + _weights(stream))
    return digest.hexdigest()


def _weights(stream: BinaryIO) -> bytes:
    """Format: https://huggingface.co/docs/safetensors (8 bytes of length, a JSON header, the tensors' bytes)."""
    size = int.from_bytes(stream.read(8), "little")
    header = stream.read(min(size, MAX_HEADER_BYTES))
    digest = hashlib.sha256(header)
    try:
        tensors = [part["data_offsets"] for name, part in json.loads(header).items() if name != "__metadata__"]
        tensors = [(int(start), int(end)) for start, end in tensors]
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return digest.digest()  # a broken file is the engine's to refuse
    for start, end in tensors:
        strip = max(STRIP_BYTES, (end - start) // STRIPS)
        for at in range(max(0, start), end, strip):
            stream.seek(8 + size + at, os.SEEK_SET)
            digest.update(stream.read(min(STRIP_BYTES, end - at)))
    return digest.digest()
