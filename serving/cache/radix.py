"""The radix tree of cached prefixes, exact to the token over pages of many tokens.

After RadixAttention (Zheng et al., SGLang, NeurIPS 2024, arXiv 2312.07104, section 3). There, only whole pages enter
the tree; here a node may begin and end inside a page. Two rules make that safe:

- A page is written by one sequence only, the one that allocated it, and only behind what the tree claims of it.
  Whoever branches off inside a page copies the partial page into one of its own (at most P - 1 tokens).
- A node holds every page that its tokens touch. So a split makes both halves holders of the boundary page, and copies
  nothing; in a path, the page at a boundary is that of the deeper node, which contains the tokens before it, too.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from itertools import count

import numpy as np
from numpy.typing import NDArray
from spark_llm.serving.cache.pages import PagePool, Pages

Tokens = NDArray[np.int32]
_NO_PAGES: Pages = np.empty(0, np.int32)
KEPT_ROOTS = 1024
"""Isolation domains beyond which those that hold nothing are forgotten."""


class Node:
    """A run of tokens at positions `start:end` of the paths through it, and the pages that these touch."""

    __slots__ = ("children", "last_used", "locks", "pages", "parent", "queued", "start", "tokens")

    def __init__(self, parent: Node | None, start: int, tokens: Tokens, pages: Pages) -> None:
        self.parent, self.start, self.tokens, self.pages = parent, start, tokens, pages
        self.children: dict[int, Node] = {}
        self.locks = self.last_used = 0
        self.queued = False

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)


class PrefixCache:
    """Pages and prefix tree together: match, lock, allocate (evicting what nobody uses), insert."""

    def __init__(self, num_pages: int, page_size: int) -> None:
        self.pool = PagePool(num_pages, page_size)
        self.page_size = page_size
        self._roots: dict[str, Node] = {}
        self.evicted_tokens = 0
        self._clock = count(1)
        self._queue: list[tuple[int, int, Node]] = []  # candidates for eviction, by last use when queued

    def root(self, domain: str = "") -> Node:
        """The root of an isolation domain's own tree: nothing is ever found from another domain."""
        if domain not in self._roots:
            if len(self._roots) >= KEPT_ROOTS:
                self._roots = {name: root for name, root in self._roots.items() if root.children or root.locks}
            self._roots[domain] = Node(None, 0, _NO_PAGES, _NO_PAGES)
        return self._roots[domain]

    def match(self, tokens: Tokens, domain: str = "") -> Node:
        """The node at which the longest cached prefix of `tokens` in `domain` ends, split there if need be.

        Lock it before anything is allocated; `node.end` is the length of the prefix.
        """
        node = self.root(domain)
        for child, common in self._walk(node, tokens):
            node = self._split(child, common) if common < len(child.tokens) else child
            node.last_used = next(self._clock)
        return node

    def matched_length(self, tokens: Tokens, domain: str = "") -> int:
        """Length of the longest cached prefix in `domain`; does not change the tree."""
        return sum(common for _, common in self._walk(self.root(domain), tokens))

    def table(self, node: Node) -> Pages:
        """The pages of the path from the root, by page index; the last one is partial if `node.end` is inside it."""
        parts, end = [], self.pool.pages_for(node.end)
        while node.parent is not None:
            first = node.start // self.page_size
            parts.append(node.pages[: end - first])
            node, end = node.parent, first
        return np.concatenate(parts[::-1]) if parts else _NO_PAGES

    def lock(self, node: Node) -> None:
        """Keep the path to this node until `unlock`."""
        self._lock_below(node, None)

    def unlock(self, node: Node) -> None:
        walk: Node | None = node
        now = next(self._clock)
        while walk is not None:
            walk.locks -= 1
            if walk.locks == 0:
                walk.last_used = now
                self.pool.unpin(walk.pages)
                self._enqueue(walk)
            walk = walk.parent

    def insert(self, node: Node, tokens: Tokens, table: Pages) -> Node:
        """Add `tokens` behind a node that the caller has locked; its lock moves to the returned node.

        `table` is the caller's page table from position 0 on. Where the tree already has the tokens, the caller's pages
        stay its own. The caller still holds its pages, and may write behind the inserted tokens.
        """
        above = node
        while len(tokens):
            child = node.children.get(int(tokens[0]))
            if child is None:
                extended = self._extend(node, tokens, table) if node is above else None
                node, tokens = extended or self._add_leaf(node, tokens, table), tokens[:0]
                continue
            common = _common(child.tokens, tokens)
            node = self._split(child, common) if common < len(child.tokens) else child
            tokens = tokens[common:]
        self._lock_below(node, above)
        return node

    def allocate(self, count: int) -> Pages | None:
        """Take `count` pages, evicting least recently used prefixes; None (and no change) if there are too few."""
        if count > self.pool.available:
            return None
        self._evict(count)
        return self.pool.allocate(count)

    def clear(self) -> None:
        """Evict everything that is not locked."""
        self._evict(self.pool.available)

    def nodes(self) -> Iterator[Node]:
        stack = [*self._roots.values()]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(node.children.values())

    def check_integrity(self, owned: Iterable[Pages] = ()) -> None:
        """Assert the invariants of tree and pool; `owned` are the pages that running sequences allocated."""
        owned, nodes = list(owned), list(self.nodes())
        for node in nodes:
            expected = self.pool.pages_for(node.end) - node.start // self.page_size
            assert len(node.pages) == (expected if node.parent else 0), "a node does not hold the pages it touches"
            assert node.locks >= sum(child.locks for child in node.children.values()), "a child outlocks its parent"
            assert node.locks or node.children or node.queued or not node.parent, "an idle leaf cannot be evicted"
            for first, child in node.children.items():
                assert child.parent is node, "a child does not know its parent"
                assert child.start == node.end, "a child does not follow its parent"
                assert len(child.tokens) > 0, "a node without tokens"
                assert int(child.tokens[0]) == first, "a child stands under another token than its first"
        locked = [node.pages for node in nodes if node.locks]
        self.pool.check_integrity([*owned, *(node.pages for node in nodes)], [*owned, *locked])

    def _walk(self, node: Node, tokens: Tokens) -> Iterator[tuple[Node, int]]:
        while len(tokens) and (child := node.children.get(int(tokens[0]))):
            common = _common(child.tokens, tokens)
            node, tokens = child, tokens[common:]
            partial = common < len(child.tokens)
            yield child, common
            if partial:
                return

    def _lock_below(self, node: Node, above: Node | None) -> None:
        walk: Node | None = node
        while walk is not above and walk is not None:
            if walk.locks == 0:
                self.pool.pin(walk.pages)
            walk.locks += 1
            walk = walk.parent

    def _split(self, node: Node, at: int) -> Node:
        """Cut a node after `at` tokens; the new upper half is returned, the node stays the lower half."""
        first, cut = node.start // self.page_size, node.start + at
        upper = Node(node.parent, node.start, node.tokens[:at], node.pages[: self.pool.pages_for(cut) - first])
        upper.locks, upper.last_used, upper.children = node.locks, node.last_used, {int(node.tokens[at]): node}
        if node.parent is not None:
            node.parent.children[int(node.tokens[0])] = upper
        node.parent, node.start, node.tokens = upper, cut, node.tokens[at:]
        node.pages = node.pages[cut // self.page_size - first :]
        if cut % self.page_size:
            self.pool.hold(node.pages[:1])
            if node.locks:
                self.pool.pin(node.pages[:1])
        return upper

    def _add_leaf(self, node: Node, tokens: Tokens, table: Pages) -> Node:
        start = node.end
        pages = table[start // self.page_size : self.pool.pages_for(start + len(tokens))].copy()
        leaf = Node(node, start, tokens.copy(), pages)
        leaf.last_used = next(self._clock)
        node.children[int(tokens[0])] = leaf
        self.pool.hold(pages)
        return leaf

    def _extend(self, node: Node, tokens: Tokens, table: Pages) -> Node | None:
        """Lengthen the caller's leaf if nobody else has locked it and its last page is the caller's; else None."""
        known = self.pool.pages_for(node.end)
        shares_last = node.end % self.page_size == 0 or (len(node.pages) and node.pages[-1] == table[known - 1])
        if node.parent is None or node.children or node.locks != 1 or not shares_last:
            return None
        pages = table[known : self.pool.pages_for(node.end + len(tokens))].copy()
        self.pool.hold(pages)
        self.pool.pin(pages)
        node.tokens, node.pages = np.concatenate([node.tokens, tokens]), np.concatenate([node.pages, pages])
        return node

    def _enqueue(self, node: Node) -> None:
        if not (node.locks or node.children or node.queued or node.parent is None):
            node.queued = True
            heapq.heappush(self._queue, (node.last_used, id(node), node))

    def _evict(self, count: int) -> None:
        """Remove unlocked leaves, least recently used first, until `count` pages are free."""
        while self.pool.free < count and self._queue:
            last_used, _, node = heapq.heappop(self._queue)
            node.queued = False
            if node.last_used > last_used:
                self._enqueue(node)
            elif not (node.locks or node.children) and node.parent is not None:
                self._remove(node, node.parent)

    def _remove(self, node: Node, parent: Node) -> None:
        del parent.children[int(node.tokens[0])]
        self.pool.release(node.pages)
        self.evicted_tokens += len(node.tokens)
        node.parent = None
        self._enqueue(parent)


def _common(a: Tokens, b: Tokens) -> int:
    n = min(len(a), len(b))
    differs = a[:n] != b[:n]
    at = int(differs.argmax())
    return at if differs[at] else n
