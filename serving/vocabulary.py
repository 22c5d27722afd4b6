"""The bytes that each token of a vocabulary stands for."""

from __future__ import annotations

import json
from typing import Any

import tokenizers


class Vocabulary:
    """Tokens to bytes and back, without special tokens.

    Known are byte-level vocabularies (GPT-2's) and those with a space mark and tokens like `<0x0A>` (SentencePiece's);
    of others `known` is False.
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        raw = json.loads(backend.to_str())
        kinds = set(_kinds(raw.get("decoder") or {}))
        special = {entry["id"] for entry in raw.get("added_tokens", ()) if entry["special"]}
        decode = _byte_level if "ByteLevel" in kinds else _byte_fallback
        self.known = bool(kinds & {"ByteLevel", "ByteFallback"})
        self.bytes_of: dict[int, bytes] = {}
        self.spelling: dict[bytes, list[int]] = {}
        for token, token_id in backend.get_vocab(with_added_tokens=True).items():
            if token_id not in special and (spelled := decode(token)):
                self.bytes_of[token_id] = spelled
                self.spelling.setdefault(spelled, []).append(token_id)


def _kinds(part: dict[str, Any]) -> list[str]:
    return [part.get("type", ""), *(kind for child in part.get("decoders", ()) for kind in _kinds(child))]


def _byte_level(token: str) -> bytes:
    try:
        return bytes(_BYTE_OF[character] for character in token)
    except KeyError:  # an added token, written as plain text
        return token.encode()


def _byte_fallback(token: str) -> bytes:
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        return bytes([int(token[3:5], 16)])
    return token.replace("▁", " ").encode()


def _byte_characters() -> dict[str, int]:
    """GPT-2's character for each byte: printable ones stand for themselves, others for those from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTE_OF = _byte_characters()
