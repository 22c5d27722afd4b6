"""The prefix cache against an oracle that knows every token of every page, every cached prefix and when it was used."""

from itertools import accumulate, count

import numpy as np
import pytest
from spark_llm.serving.cache.radix import KEPT_ROOTS, PrefixCache

DOMAINS = "ab"


def prefixes(tokens, domain) -> list[int]:
    """A hash of each prefix of the tokens, the shortest first."""
    return list(accumulate(tokens.tolist(), lambda known, token: hash((known, token)), initial=ord(domain)))[1:]


class Oracle:
    """Sequences that write their tokens into simulated pages, and what the cache may claim about them."""

    def __init__(self, pages: int, page_size: int, seed: int) -> None:
        self.cache = PrefixCache(pages, page_size)
        self.size = page_size
        self.content = np.full((pages, page_size), -1, np.int64)  # hash of the prefix that ends at the slot
        self.rng = np.random.default_rng(seed)
        self.live = []  # (node, tokens, table, first own page, domain)
        self.used: dict[int, int] = {}  # each cached prefix, and when it was last matched, added or given up
        self.clock, self.evicted = count(), 0

    def random_tokens(self) -> np.ndarray:
        if self.live and self.rng.random() < 0.5:
            base = self.live[int(self.rng.integers(len(self.live)))][1]
            base = base[: int(self.rng.integers(len(base) + 1))]
        else:
            base = np.empty(0, np.int32)
        return np.concatenate([base, self.rng.integers(0, 3, int(self.rng.integers(1, 4 * self.size)))]).astype(
            np.int32
        )

    def slots(self, table, first, last):
        at = np.arange(first, last)
        return table[at // self.size], at % self.size

    def write(self, table, tokens, domain, start) -> None:
        self.content[self.slots(table, start, len(tokens))] = prefixes(tokens, domain)[start:]

    def assert_readable(self, table, tokens, domain) -> None:
        assert self.content[self.slots(table, 0, len(tokens))].tolist() == prefixes(tokens, domain)

    def use(self, tokens, domain) -> None:
        self.used |= dict.fromkeys(prefixes(tokens, domain), next(self.clock))

    def start(self) -> None:
        tokens, domain = self.random_tokens(), DOMAINS[int(self.rng.integers(2))]
        known = next((i for i, key in enumerate(prefixes(tokens, domain)) if key not in self.used), len(tokens))
        assert self.cache.matched_length(tokens, domain) == known
        node = self.cache.match(tokens, domain)
        assert node.end == known, "a cached prefix was not found, or one that is not cached was"
        self.use(tokens[:known], domain)
        table = self.cache.table(node)
        self.assert_readable(table, tokens[:known], domain)
        self.cache.lock(node)
        first = known // self.size
        own = self.allocate(self.cache.pool.pages_for(len(tokens)) - first, tokens[:known], domain)
        if own is None:
            self.cache.unlock(node)
            self.use(tokens[:known], domain)
            return
        if known % self.size:
            self.content[own[0], : known % self.size] = self.content[table[-1], : known % self.size]
        table = np.concatenate([table[:first], own])
        self.write(table, tokens, domain, known)
        node = self.cache.insert(node, tokens[known:], table)
        self.use(tokens, domain)
        assert node.end == len(tokens)
        self.live.append([node, tokens, table, first, domain])

    def grow(self) -> None:
        entry = self.live[int(self.rng.integers(len(self.live)))]
        node, tokens, table, _, domain = entry
        longer = np.append(tokens, self.rng.integers(0, 3, int(self.rng.integers(1, self.size + 1)))).astype(np.int32)
        pages = self.allocate(self.cache.pool.pages_for(len(longer)) - len(table), tokens, domain)
        if pages is None:
            return
        table = np.concatenate([table, pages])
        self.write(table, longer, domain, len(tokens))
        entry[:3] = self.cache.insert(node, longer[len(tokens) :], table), longer, table
        self.use(longer, domain)

    def end(self) -> None:
        node, tokens, table, first, domain = self.live.pop(int(self.rng.integers(len(self.live))))
        self.assert_readable(table, tokens, domain)
        self.cache.unlock(node)
        self.use(tokens, domain)
        self.cache.pool.unpin(table[first:])
        self.cache.pool.release(table[first:])

    def allocate(self, pages, locked, domain):
        """Allocate; what was evicted for it was unlocked, and no unlocked leaf that is left was used earlier."""
        before = self.cache.pool.free
        own = self.cache.allocate(pages)
        lock = {key for entry in self.live for key in prefixes(entry[1], entry[4])} | {*prefixes(locked, domain)}
        left, leaves = self.held()
        gone = self.used.keys() - left
        assert left <= self.used.keys()
        assert not gone & lock, "a locked prefix was evicted"
        assert self.cache.evicted_tokens - self.evicted == len(gone)
        assert not gone or (own is not None and before < pages), "evicted without need"
        if gone and leaves - lock:
            assert max(self.used[key] for key in gone) <= min(self.used[key] for key in leaves - lock)
        self.evicted, self.used = self.cache.evicted_tokens, {key: self.used[key] for key in left}
        return own

    def held(self) -> tuple[set[int], set[int]]:
        """The prefixes that stand in the trees, and those of them at which a leaf ends."""
        every, leaves = set(), set()
        for domain in DOMAINS:
            stack = [(self.cache.root(domain), np.empty(0, np.int32))]
            while stack:
                node, tokens = stack.pop()
                keys = prefixes(tokens, domain)
                every.update(keys)
                leaves.update(keys[-1:] if not node.children else ())
                stack += [(child, np.concatenate([tokens, child.tokens])) for child in node.children.values()]
        return every, leaves

    def check(self) -> None:
        self.cache.check_integrity(table[first:] for _, _, table, first, _ in self.live)
        pages = [*(node.pages for node in self.cache.nodes()), *(table for _, _, table, _, _ in self.live)]
        assert self.cache.pool.free == self.cache.pool.num_pages - len({int(page) for run in pages for page in run})
        for node, tokens, table, _, domain in self.live:
            assert node.end == len(tokens), "a locked node was evicted or changed"
            self.assert_readable(table, tokens, domain)
            self.assert_readable(self.cache.table(node), tokens, domain)


CASES = [(1500, 5, pages, size) for pages in (12, 60) for size in (1, 4, 16)]


@pytest.mark.parametrize(
    ("operations", "interval", "pages", "page_size"), [*CASES, pytest.param(100_000, 97, 24, 4, marks=pytest.mark.slow)]
)
def test_random_operations_keep_every_page_right(operations, interval, pages, page_size):
    oracle = Oracle(pages, page_size, seed=page_size * pages)
    for i in range(operations):
        choices = [oracle.start, *([oracle.grow, oracle.end] if oracle.live else [])]
        choices[int(oracle.rng.integers(len(choices)))]()
        if i % interval == 0:
            oracle.check()
    assert oracle.cache.evicted_tokens > 0
    while oracle.live:
        oracle.end()
    oracle.cache.clear()
    oracle.check()
    assert oracle.cache.pool.free == pages
    assert oracle.held() == (set(), set())


def put(cache: PrefixCache, tokens: list[int], domain: str = "") -> None:
    """Leave a prefix in the cache, as a finished sequence does."""
    run = np.array(tokens, np.int32)
    node = cache.match(run, domain)
    cache.lock(node)
    own = cache.allocate(cache.pool.pages_for(len(run)) - node.end // cache.page_size)
    table = np.concatenate([cache.table(node)[: node.end // cache.page_size], own])
    cache.unlock(cache.insert(node, run[node.end :], table))
    cache.pool.unpin(own)
    cache.pool.release(own)


def matched(cache: PrefixCache, tokens: list[int], domain: str = "") -> int:
    return cache.matched_length(np.array(tokens, np.int32), domain)


def test_prefixes_match_to_the_token_and_splits_copy_nothing():
    cache = PrefixCache(8, 4)
    put(cache, [1, 2, 3, 4, 5, 6, 7])
    free = cache.pool.free
    assert [matched(cache, p) for p in ([1, 2, 3, 9], [1, 2, 3, 4, 5, 6, 9], [2], [])] == [3, 6, 0, 0]
    assert cache.match(np.array([1, 2, 3, 4, 5, 6, 9], np.int32)).end == 6
    assert cache.pool.free == free, "a split holds the boundary page twice, and needs no new one"
    cache.check_integrity()


def test_evicts_the_least_recently_used_leaf_first():
    cache = PrefixCache(3, 4)
    for head in (1, 2, 3):
        put(cache, [head] * 4)
    assert cache.match(np.array([1] * 4, np.int32)).end == 4
    put(cache, [4] * 4)
    assert [matched(cache, [head] * 4) for head in (1, 2, 3, 4)] == [4, 0, 4, 4]
    cache.check_integrity()


def test_allocation_beyond_what_can_be_evicted_changes_nothing():
    cache = PrefixCache(3, 4)
    put(cache, [1] * 8)
    node = cache.match(np.array([1] * 8, np.int32))
    cache.lock(node)
    assert cache.allocate(2) is None
    assert matched(cache, [1] * 8) == 8
    assert cache.pool.available == 1


def test_nothing_is_found_from_another_isolation_domain():
    cache = PrefixCache(8, 4)
    put(cache, [1, 2, 3, 4, 5, 6], "pool a")
    assert [matched(cache, [1, 2, 3, 4, 5], domain) for domain in ("pool a", "pool b", "")] == [5, 0, 0]
    cache.check_integrity()


def test_roots_of_forgotten_domains_do_not_pile_up():
    cache = PrefixCache(8, 4)
    for number in range(3 * KEPT_ROOTS):
        cache.match(np.array([1], np.int32), f"query {number}")
    assert sum(1 for _ in cache.nodes()) <= KEPT_ROOTS
