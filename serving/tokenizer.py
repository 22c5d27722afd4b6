"""A model's tokenizer: prompt pieces to tokens, tokens to text."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import tokenizers
from spark_llm.serving.cache.radix import Tokens
from spark_llm.serving.core import EngineFailure
from spark_llm.serving.vocabulary import Vocabulary
from tokenizers.decoders import DecodeStream

CACHED_CHARACTERS = 1 << 25
"""Text of the pieces whose tokens are remembered."""


class Tokenizer:
    """A tokenizer.json, encoding pieces of prompts apart, so that equal pieces are equal token runs.

    Tokenizers that put a space before every text (Llama 2) encode a piece behind a newline, which is then taken away:
    the border of pieces stands after a newline anyway.
    """

    def __init__(self, directory: Path) -> None:
        file = directory / "tokenizer.json"
        if not file.exists():
            raise EngineFailure(
                "LLM_ENGINE_START",
                f"engine 'native' cannot serve model '{directory}': it has no tokenizer.json.",
                "Save the model's fast tokenizer beside its weights.",
            )
        self.backend = tokenizers.Tokenizer.from_file(str(file))
        self.backend.no_padding()
        self.backend.no_truncation()
        self.start_ids = self.backend.encode("", add_special_tokens=True).ids
        self._newline = self._encode(["\n"], markup=False)[0]
        self._adds_space = self._encode(["\na"], markup=False)[0] != [
            *self._newline,
            *self._encode(["a"], markup=False)[0],
        ]
        self._pieces: OrderedDict[tuple[str, bool], Tokens] = OrderedDict()
        self._characters = 0

    @cached_property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(self.backend)

    def id_of(self, token: str) -> int | None:
        return self.backend.token_to_id(token)

    def encode(self, text: str, *, markup: bool = False) -> Tokens:
        return self.encode_pieces([text], markup=markup)[0]

    def encode_pieces(self, texts: Sequence[str], *, markup: bool = False) -> list[Tokens]:
        """Tokens of pieces that stand after a newline, a special token or the answer so far.

        Names of special tokens are recognized in `markup` (chat templates) and are plain text in data. Pieces seen
        before come from a cache of the least recently used.
        """
        pieces = self._pieces
        try:
            found = [pieces[text, markup] for text in texts]
        except KeyError:
            pass
        else:
            for text in texts:
                pieces.move_to_end((text, markup))
            return found
        new = [text for text in dict.fromkeys(texts) if (text, markup) not in pieces]
        before = "\n" if self._adds_space else ""
        for text, ids in zip(new, self._encode([before + text for text in new], markup=markup), strict=True):
            start = len(self._newline) if before and ids[: len(self._newline)] == self._newline else 0
            self._pieces[text, markup] = np.array(ids[start:], np.int32)
        self._characters += sum(map(len, new))
        found = []
        for text in texts:
            self._pieces.move_to_end((text, markup))
            found.append(self._pieces[text, markup])
        while self._characters > CACHED_CHARACTERS:
            (text, _), _ = self._pieces.popitem(last=False)
            self._characters -= len(text)
        return found

    def stream(self) -> TextStream:
        return TextStream(self.backend)

    def decode(self, tokens: Iterable[int]) -> str:
        """Text of an answer's tokens, without special tokens and without an incomplete character at its end."""
        text: str = self.backend.decode([int(token) for token in tokens], skip_special_tokens=True)
        return text.rstrip("\ufffd")

    def _encode(self, texts: Sequence[str], *, markup: bool) -> list[list[int]]:
        self.backend.encode_special_tokens = not markup
        return [encoding.ids for encoding in self.backend.encode_batch_fast(texts, add_special_tokens=False)]


class TextStream:
    """Tokens to text, one by one; bytes of an incomplete character are held back."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self._backend, self._stream = backend, DecodeStream(skip_special_tokens=True)

    def add(self, token: int) -> str:
        """The text that this token completes; may be empty."""
        return self._stream.step(self._backend, token) or ""
