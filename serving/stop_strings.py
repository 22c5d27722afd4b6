"""Stop strings, looked for only where a token may end one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from spark_llm.serving.tokenizer import Tokenizer


class StopStrings:
    """The stop strings of a call; `may_end` [vocab]: the tokens in which one of them may end."""

    def __init__(self, texts: Sequence[str], tokenizer: Tokenizer, vocab_size: int) -> None:
        self.texts, self._longest = texts, max(map(len, texts))
        vocabulary, size = tokenizer.vocabulary, tokenizer.backend.get_vocab_size(with_added_tokens=True)
        # what replaces broken bytes stands for many of them
        self.may_end = np.full(max(size, vocab_size), not vocabulary.known or any("\ufffd" in text for text in texts))
        wanted = [text.encode() for text in texts]
        ends = tuple({text[i:] for text in wanted for i in range(len(text))})
        for token, spelled in vocabulary.bytes_of.items():
            if spelled.startswith(ends) or any(text in spelled for text in wanted):
                self.may_end[token] = True

    def find(self, text: str, known: int) -> int:
        """Where in a text the first of them begins that ends behind its first `known` characters; -1 if none does."""
        begin = max(0, known - self._longest + 1)
        return min((place for one in self.texts if (place := text.find(one, begin)) >= 0), default=-1)
