"""The text side of one answer: constraint, stop strings, length, and the tokens that need no model."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from spark_llm.serving.choices import Choices, Mask
from spark_llm.serving.core import Call, FinishReason
from spark_llm.serving.grammar import Grammar
from spark_llm.serving.sampling import Draw
from spark_llm.serving.scheduler.sequence import Branch
from spark_llm.serving.stop_strings import StopStrings
from spark_llm.serving.tokenizer import Tokenizer


class Generation:
    """Accepts an answer's tokens one by one until `finish_reason` is set.

    Parameters
    ----------
    stops : StopStrings, optional
        Of the call.
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
        stops: StopStrings | None,
        stop_ids: frozenset[int],
        limit: int,
        seed: int,
    ) -> None:
        self._call, self._grammar, self._stop_ids, self._limit, self._seed = call, grammar, stop_ids, limit, seed
        self._tokenizer, self._stream, self.stops = tokenizer, tokenizer.stream(), stops
        self._text, self._read = "", 0  # of the first tokens; read on where a stop string may have ended
        self.incomplete = False  # whether what was read ends inside a character
        self._cut = False  # before a stop string
        self.tokens: list[int] = []
        self.finish_reason: FinishReason | None = None

    @property
    def text(self) -> str:
        if self.stops is None:
            return self._tokenizer.decode(self.tokens)
        if not self._cut:
            self._read_on()
        return self._text

    @property
    def mask(self) -> Mask | None:
        """Tokens allowed next; None allows all."""
        return None if self._grammar is None else self._grammar.mask

    @property
    def ahead(self) -> tuple[Branch, ...]:
        """What may follow the tokens so far, up to the next decisions of the model; empty where that is too much."""
        return () if self._grammar is None else self._grammar.ahead

    @property
    def grammar(self) -> Grammar | None:
        return self._grammar if isinstance(self._grammar, Grammar) else None

    @property
    def runs(self) -> bool:
        """Whether a decode run can take the answer further: choices take few steps anyway."""
        return self._grammar is None or (self.grammar is not None and self.stops is None)

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

    def resume(self, tokens: list[int], *, refused: bool = False) -> list[int]:
        """Append tokens that a decode run chose, none but the last of which can end the answer, as `extend` does.

        The grammar knows of them already; `refused` says that it does not allow the last one.
        """
        *sure, last = tokens
        self.tokens += sure
        if refused:
            self.finish_reason = "error"
        if self._grammar is None or refused or last in self._stop_ids:
            return [*sure, *([] if refused else self._accept([last]))]
        self._append(last)
        return [*tokens, *(self._accept(self._grammar.forced()) if self.finish_reason is None else ())]

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
        """Whether one ends in this token; the text is then cut before it."""
        if self.stops is None or not (self.incomplete or self.stops.may_end[token]):
            return False
        known = len(self._text)
        self._read_on()
        place = self.stops.find(self._text, known)
        if place >= 0:
            self._text, self._cut = self._text[:place], True
        return place >= 0

    def _read_on(self) -> None:
        """Decode the tokens that were not read yet."""
        for token in self.tokens[self._read :]:
            added = self._stream.add(token)
            self.incomplete = not added
            self._text += added
        self._read = len(self.tokens)
