"""A constraint to one of several texts, as a tree over their bytes whose nodes all answers share.

What may come next, what is forced and where an answer ends depends only on the bytes so far; so each node is worked out
once per set of choices, and a row costs a dictionary look-up per token. Same answers as a grammar of the same choices.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray
from spark_llm.serving.scheduler.sequence import Branch
from spark_llm.serving.tokenizer import Tokenizer
from spark_llm.serving.vocabulary import Vocabulary

Mask = NDArray[np.int32]
MOST_AHEAD = 64
"""Tokens of the ways ahead that are computed together; where more are possible, a further step follows."""


class ChoiceTree:
    """The states of one set of choices.

    Parameters
    ----------
    choices : list of str
        Not empty, and none of them empty.
    only_stop : array
        The bit mask of the tokens that end an answer.
    """

    def __init__(self, choices: list[str], tokenizer: Tokenizer, vocabulary: Vocabulary, only_stop: Mask) -> None:
        self._texts = sorted({choice.encode() for choice in choices})
        self._tokenizer, self._vocabulary, self._only_stop = tokenizer, vocabulary, only_stop
        self._states: dict[bytes, ChoiceState] = {}

    def matcher(self) -> Choices:
        """A matcher at the start of an answer."""
        return Choices(self.state(b""))

    def state(self, known: bytes) -> ChoiceState:
        if known not in self._states:
            self._states[known] = self._make(known)
        return self._states[known]

    def ahead(self, start: ChoiceState) -> tuple[Branch, ...]:
        """The ways from a state to all later ones in which the model decides, the shortest first."""
        branches: list[Branch] = []
        reached, tokens = deque([(-1, 0, start)]), 0
        while reached:
            parent, begin, state = reached.popleft()
            for token in state.following:
                way, following = self._way(state, token)
                if following.finished:
                    continue
                tokens += len(way)
                if tokens > MOST_AHEAD:
                    return tuple(branches)
                reached.append((len(branches), begin + len(way), following))
                branches.append(Branch(parent, begin + len(way), way))
        return tuple(branches)

    def _way(self, state: ChoiceState, token: int) -> tuple[tuple[int, ...], ChoiceState]:
        """A token and all that it forces, and the state to which they lead."""
        way, state = [token], self.state(state.following[token])
        while state.forced and not state.finished:
            for forced in state.forced:
                state = self.state(state.following[forced])
                way.append(forced)
        return tuple(way), state

    def _make(self, known: bytes) -> ChoiceState:
        rests = [text[len(known) :] for text in self._texts if text.startswith(known)]
        mask = self._only_stop.copy() if b"" in rests else np.zeros_like(self._only_stop)
        following = {}
        for rest in rests:
            for end in range(1, len(rest) + 1):
                for token in self._vocabulary.spelling.get(rest[:end], ()):
                    following[token] = known + rest[:end]
        words = mask.view(np.uint32)
        for token in following:
            words[token // 32] |= np.uint32(1 << token % 32)
        mask.flags.writeable = False
        return ChoiceState(self, mask, following, finished=rests == [b""], forced=self._forced(rests, following))

    def _forced(self, rests: list[bytes], following: dict[int, bytes]) -> list[int]:
        """The tokens of what all rests begin with; the last one is left to the model where more follows."""
        common = rests[0]
        for rest in rests[1:]:
            end = next((i for i, (a, b) in enumerate(zip(common, rest, strict=False)) if a != b), None)
            common = common[: min(len(common), len(rest)) if end is None else end]
        text = _whole_characters(common)
        tokens = self._tokenizer.encode(text).tolist() if text else []
        if b"".join(self._vocabulary.bytes_of.get(token, b"") for token in tokens) != text.encode():
            tokens = []  # the tokenizer normalizes the text into another
        elif rests != [common]:
            tokens = tokens[:-1]
        return tokens or (list(following) if len(following) == 1 and b"" not in rests else [])


class ChoiceState:
    """What may follow the same bytes; shared by all answers that have come this far."""

    __slots__ = ("_ahead", "finished", "following", "forced", "mask", "tree")

    def __init__(
        self, tree: ChoiceTree, mask: Mask, following: dict[int, bytes], *, finished: bool, forced: list[int]
    ) -> None:
        self.tree, self.mask, self.following, self.finished, self.forced = tree, mask, following, finished, forced
        self._ahead: tuple[Branch, ...] | None = None

    @property
    def ahead(self) -> tuple[Branch, ...]:
        """What may follow, up to the next decisions of the model."""
        if self._ahead is None:
            self._ahead = self.tree.ahead(self)
        return self._ahead


class Choices:
    """Where one answer stands among the choices."""

    __slots__ = ("_state",)

    def __init__(self, state: ChoiceState) -> None:
        self._state = state

    @property
    def mask(self) -> Mask:
        """Bit t of word t // 32: token t may come next."""
        return self._state.mask

    @property
    def finished(self) -> bool:
        """Whether nothing but the end can follow."""
        return self._state.finished

    def accept(self, token: int) -> bool:
        """Advance by a token; False if no choice goes on like that."""
        known = self._state.following.get(token)
        if known is None:
            return False
        self._state = self._state.tree.state(known)
        return True

    @property
    def ahead(self) -> tuple[Branch, ...]:
        """What may follow, up to the next decisions of the model: few enough tokens to be computed together."""
        return self._state.ahead

    def forced(self) -> list[int]:
        """Tokens that can be appended without asking the model."""
        return self._state.forced


def _whole_characters(raw: bytes) -> str:
    """The text that bytes begin with, up to an incomplete character."""
    try:
        return raw.decode()
    except UnicodeDecodeError as problem:
        return raw[: problem.start].decode()
