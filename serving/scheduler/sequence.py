"""A request as the scheduler sees it: tokens, how many of them have their keys and values, and in which pages."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from spark_llm.serving.cache.pages import Pages
from spark_llm.serving.cache.radix import Node, Tokens
from spark_llm.serving.core import NOBODY, ClientRef


class Branch(NamedTuple):
    """Tokens that may follow what is known of a sequence, and behind which the model would be asked again.

    They stand behind the branch `parent`, or behind the known tokens (-1); `end` is counted from the end of the latter.
    """

    parent: int
    end: int
    tokens: tuple[int, ...]


class Sequence:
    """Prompt and answer tokens of one request.

    `computed` tokens have (or get in the step being scheduled) their keys and values in the pages of `table`; the pages
    from index `owned_from` on are the sequence's own. `node` is the locked node of the prefix tree at which what the
    sequence has inserted so far ends. Prefixes are shared within `domain` only. `ahead` is a tree of what may follow
    the known tokens, to be computed with the last of them.
    """

    __slots__ = (
        "_length",
        "_tokens",
        "ahead",
        "cached",
        "client",
        "computed",
        "domain",
        "node",
        "owned_from",
        "prompt_length",
        "request_id",
        "table",
    )

    def __init__(
        self, request_id: int, prompt: Tokens, max_new_tokens: int, domain: str = "", client: ClientRef = NOBODY
    ) -> None:
        self.request_id, self.domain, self.client = request_id, domain, client
        self.prompt_length = self._length = len(prompt)
        self._tokens = np.zeros(len(prompt) + max_new_tokens, np.int32)
        self._tokens[: len(prompt)] = prompt
        self.ahead: tuple[Branch, ...] = ()
        self.cached: int | None = None  # prompt tokens not computed by this sequence; None before admission
        self.reset()

    def reset(self) -> None:
        """Forget the keys and values, not the tokens."""
        self.computed = self.owned_from = 0
        self.table: Pages = np.empty(0, np.int32)
        self.node: Node | None = None

    def __len__(self) -> int:
        return self._length

    @property
    def tokens(self) -> Tokens:
        return self._tokens[: self._length]

    @property
    def output(self) -> Tokens:
        return self._tokens[self.prompt_length : self._length]

    @property
    def room(self) -> int:
        """How many tokens may follow."""
        return len(self._tokens) - self._length

    @property
    def owned_pages(self) -> Pages:
        return self.table[self.owned_from :]

    def branch(self, parent: int, tokens: list[int]) -> int | None:
        """The branch of these tokens behind `parent`; None where there is none."""
        wanted = parent, tuple(tokens)
        return next((i for i, branch in enumerate(self.ahead) if (branch.parent, branch.tokens) == wanted), None)

    def extend(self, tokens: list[int]) -> None:
        """Append answer tokens."""
        self._tokens[self._length : self._length + len(tokens)] = tokens
        self._length += len(tokens)
