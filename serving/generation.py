"""The text side of one answer: constraint, stop strings, length, and the tokens that need no model."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from spark_llm.serving.choices import Choices, Mask
from spark_llm.serving.core import Call, FinishReason
from spark_llm.serving.grammar import Grammar
from spark_llm.serving.sampling import Draw
from spark_llm.serving.scheduler.sequence import Branch
from spark_llm.serving.tokenizer import Tokenizer


class Generation:
    """Accepts an answer's tokens one by one until `finish_reason` is set.

    Parameters
    ----------
    limit : int
        Longest answer in tokens.
    seed : int
        Of the draws, where the call's temperature asks for any.
    """

    def __init__(
        self,
        call: Call,
        tokenizer: Tokenizer,
        grammar: Grammar | Choices | None,
        stop_ids: frozenset[int],
        limit: int,
        seed: int,
    ) -> None:
        self._call, self._grammar, self._stop_ids, self._limit, self._seed = call, grammar, stop_ids, limit, seed
        self._tokenizer, self._stream = tokenizer, tokenizer.stream() if call.stop else None
        self._streamed = ""  # the text so far; kept only where stop strings are looked for
        self.tokens: list[int] = []
        self.finish_reason: FinishReason | None = None

    @property
    def text(self) -> str:
        return self._streamed if self._call.stop else self._tokenizer.decode(self.tokens)

    @property
    def mask(self) -> Mask | None:
        """Tokens allowed next; None allows all."""
        return None if self._grammar is None else self._grammar.mask

    @property
    def ahead(self) -> tuple[Branch, ...]:
        """What may follow the tokens so far, up to the next decisions of the model; empty where that is too much."""
        return () if self._grammar is None else self._grammar.ahead

    @property
    def plain(self) -> bool:
        """Whether nothing but end tokens and length bounds the answer, and it is the most likely one."""
        return self._grammar is None and self._stream is None and self._call.temperature == 0

    @property
    def left(self) -> int:
        """How many tokens may still follow."""
        return self._limit - len(self.tokens)

    @property
    def draw(self) -> Draw:
        """How to choose the next token."""
        return Draw(self._call.temperature, self._call.top_p, self._seed, len(self.tokens))

    def begin(self) -> list[int]:
        """Tokens with which every answer starts."""
        return [] if self._grammar is None else self._accept(self._grammar.forced())

    def extend(self, token: int) -> list[int]:
        """Accept the chosen token; returns it and the tokens that it forces, without one that ends the answer."""
        return self._accept([token])

    def _accept(self, tokens: Iterable[int]) -> list[int]:
        queue, accepted = deque(tokens), []
        while queue and self.finish_reason is None:
            token = queue.popleft()
            if token in self._stop_ids:
                self.finish_reason = "stop"
            elif self._grammar is not None and not self._grammar.accept(token):
                self.finish_reason = "error"
            else:
                accepted.append(token)
                self._append(token)
                if self._grammar is not None and not queue:
                    queue.extend(self._grammar.forced())
        return accepted

    def _append(self, token: int) -> None:
        self.tokens.append(token)
        if self._reaches_stop_string(token) or (self._grammar is not None and self._grammar.finished):
            self.finish_reason = "stop"
        elif len(self.tokens) == self._limit:
            self.finish_reason = "length"

    def _reaches_stop_string(self, token: int) -> bool:
        """Add the token's text; cut it before the first stop string that it completes."""
        if self._stream is None:
            return False
        known = len(self._streamed)
        self._streamed += self._stream.add(token)
        places = [self._streamed.find(stop, max(0, known - len(stop) + 1)) for stop in self._call.stop]
        found = [place for place in places if place >= 0]
        if found:
            self._streamed = self._streamed[: min(found)]
        return bool(found)
