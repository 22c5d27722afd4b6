"""What an engine's prefix cache serves: a model of bounded capacity, blocks and eviction, without an engine."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Piece = TypeVar("Piece", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Served:
    """Tokens of all prompts, and those of them that came from the cache."""

    prompt: int
    cached: int

    @property
    def rate(self) -> float:
        return self.cached / self.prompt if self.prompt else 0.0


def simulate_cache(
    prompts: Iterable[Sequence[Piece]],
    size: Callable[[Piece], int],
    capacity: int | None = None,
    block: int = 1,
    minimum: int = 0,
) -> Served:
    """Ask prompts one after another of an engine with a prefix cache.

    Parameters
    ----------
    prompts : iterable of sequences
        Each prompt's pieces: equal pieces are equal tokens, different ones share no beginning.
    size : callable
        Tokens of a piece. Any unit will do that `capacity` and `block` have too.
    capacity : int, optional
        Tokens that the cache holds; unbounded by default.
    block : int
        Only whole blocks are kept and served: 16 for vLLM, 1 for the native engine.
    minimum : int
        A shorter beginning is not served: 1024 at hosted endpoints.

    Returns
    -------
    Served
        The last token of a prompt is always computed.

    Notes
    -----
    Least recently used blocks go first, the last block of a prompt before those it stands on, as in vLLM and in
    RadixAttention (Zheng et al., NeurIPS 2024). Running prompts and answers take no place in this model.

    Examples
    --------
    >>> simulate_cache([("system ", "film A ", "x"), ("system ", "film A ", "y")], len)
    Served(prompt=30, cached=14)
    """
    if block < 1 or (capacity is not None and capacity < 0):
        msg = f"a cache has blocks of at least 1 token and no negative capacity, got {block} and {capacity}"
        raise ValueError(msg)
    cache = _Cache[Piece](size, None if capacity is None else capacity // block, block)
    total = cached = 0
    for prompt in prompts:
        tokens, served = cache.ask(prompt)
        total, cached = total + tokens, cached + (served if served >= minimum else 0)
    return Served(total, cached)


@dataclass(slots=True)
class _Cache(Generic[Piece]):
    """The blocks in the cache, by the prompt that used them last.

    That prompt's own blocks are a run `taken[p]:kept[p]` of its path: later prompts took the beginning over, eviction
    shortens the end. So the state is two numbers per prompt, and a prompt costs a step per piece.
    """

    size: Callable[[Piece], int]
    capacity: int | None
    block: int
    nodes: dict[tuple[int, Piece], int] = field(default_factory=dict)
    users: list[int] = field(default_factory=lambda: [0])
    taken: list[int] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    used: int = 0
    oldest: int = 0

    def ask(self, prompt: Sequence[Piece]) -> tuple[int, int]:
        """Tokens of the prompt, and those served."""
        this, node, tokens, found, whole = len(self.kept), 0, 0, 0, True
        for piece in filter(self.size, prompt):
            node = self.nodes.setdefault((node, piece), len(self.users))
            tokens += self.size(piece)
            if node == len(self.users):
                self.users.append(this)
                whole = False
            user, self.users[node] = self.users[node], this
            if whole:
                end = tokens // self.block
                found, whole = max(found, min(self.kept[user], end)), self.kept[user] >= end
                self.taken[user] = max(self.taken[user], found)
        self._add(tokens // self.block, found)
        return tokens, min(found, max(tokens - 1, 0) // self.block) * self.block

    def _add(self, blocks: int, found: int) -> None:
        self.taken.append(0)
        self.kept.append(blocks)
        self.used += blocks - found
        while self.capacity is not None and self.used > self.capacity:
            here = min(self.kept[self.oldest] - self.taken[self.oldest], self.used - self.capacity)
            self.kept[self.oldest] -= here
            self.used -= here
            self.oldest += self.taken[self.oldest] == self.kept[self.oldest]
