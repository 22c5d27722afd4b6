"""The pages of the KV cache: who holds them, and which of them an eviction could free."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Pages = NDArray[np.int32]


class PagePool:
    """Reference counts of `num_pages` pages of `page_size` tokens.

    A page has *holders* (nodes of the prefix tree and the running sequence that writes it) and *pins*: holders that
    cannot be evicted (that sequence, and locked nodes). Held but unpinned pages are idle: eviction frees them.
    """

    def __init__(self, num_pages: int, page_size: int) -> None:
        self.num_pages, self.page_size = num_pages, page_size
        self._holders = [0] * num_pages  # lists: few pages at a time are looked at, where an array's calls cost more
        self._pins = [0] * num_pages
        self._free = list(range(num_pages - 1, -1, -1))
        self._idle = 0

    @property
    def free(self) -> int:
        return len(self._free)

    @property
    def available(self) -> int:
        """Pages that are free or could be, by eviction."""
        return len(self._free) + self._idle

    def pages_for(self, tokens: int) -> int:
        return -(-tokens // self.page_size)

    def allocate(self, count: int) -> Pages:
        """Take free pages, held and pinned by the caller; the caller has made sure that there are enough."""
        pages = [self._free.pop() for _ in range(count)]
        for page in pages:
            self._holders[page] = self._pins[page] = 1
        return np.array(pages, np.int32)

    def hold(self, pages: Pages) -> None:
        for page in pages.tolist():
            self._holders[page] += 1

    def release(self, pages: Pages) -> None:
        """Drop a holder that is not pinning; pages without holders become free."""
        for page in reversed(pages.tolist()):
            self._holders[page] -= 1
            if not self._holders[page]:
                self._free.append(page)
                self._idle -= 1

    def pin(self, pages: Pages) -> None:
        for page in pages.tolist():
            self._idle -= not self._pins[page]
            self._pins[page] += 1

    def unpin(self, pages: Pages) -> None:
        for page in pages.tolist():
            self._pins[page] -= 1
            self._idle += not self._pins[page]

    def check_integrity(self, holding: Iterable[Pages], pinning: Iterable[Pages]) -> None:
        """Assert that counts equal these holders and pins, and that every page is held or free, once."""
        holders, pins = np.zeros((2, self.num_pages), np.int32)
        for pages in holding:
            holders[pages] += 1
        for pages in pinning:
            pins[pages] += 1
        assert holders.tolist() == self._holders, "pages are held by nobody known, or not held by a known holder"
        assert pins.tolist() == self._pins, "pages are pinned by nobody known, or not pinned by a known holder"
        assert (pins <= holders).all(), "a page has more pins than holders"
        assert sorted(self._free) == np.flatnonzero(holders == 0).tolist(), "the free list misses or repeats pages"
        assert self._idle == int(((holders > 0) & (pins == 0)).sum()), "the count of idle pages is wrong"
