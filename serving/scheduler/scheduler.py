"""Continuous batching with chunked prefill under a token budget, over the paged prefix cache.

A step first continues the running sequences, in order of admission (one token each in decode, more while a prompt is
still being computed), then admits waiting ones while budget and pages last. What a step will compute enters the prefix
tree when it is scheduled: keys and values of all tokens of a step are stored before any of its attention runs, layer by
layer, so sequences of the same step can share what one of them computes, and no prefix is ever computed twice.

Sequences in decode may be left to a run (`decode`), which tells what it computed when it gives them back (`decoded`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from spark_llm.serving.cache.pages import Pages
from spark_llm.serving.cache.radix import PrefixCache, Tokens
from spark_llm.serving.scheduler.policy import CHARGED_TOKENS, FirstComeFirstServed, Policy
from spark_llm.serving.scheduler.sequence import Branch, Sequence


@dataclass(frozen=True, slots=True)
class Chunk:
    """Positions start:end of a sequence, or of a branch of it, computed in this step."""

    sequence: Sequence
    start: int
    end: int
    tokens: Tokens
    table: Pages
    branch: int = -1  # of `sequence.ahead`; -1: its known tokens

    @property
    def is_last(self) -> bool:
        """Whether the step computes all known tokens, or a branch behind them, so that its logits give the next one."""
        return self.end >= len(self.sequence)


@dataclass(frozen=True, slots=True)
class PageCopy:
    """The first `tokens` tokens of page `source` are copied to page `target`, in each layer after the step's stores."""

    source: int
    target: int
    tokens: int


@dataclass(slots=True)
class Step:
    """What to compute next. `copies` are in order: a source may be the target of an earlier one."""

    chunks: list[Chunk] = field(default_factory=list)
    copies: list[PageCopy] = field(default_factory=list)


class Scheduler:
    """Owns the sequences from `add` to `finish` or `cancel`, and their pages."""

    def __init__(
        self, cache: PrefixCache, *, max_batch_tokens: int, max_running: int, policy: Policy | None = None
    ) -> None:
        self.cache = cache
        self.max_batch_tokens, self.max_running = max_batch_tokens, max_running
        self.policy = FirstComeFirstServed() if policy is None else policy
        self.policy.matched = self._matched
        self.waiting: dict[int, Sequence] = {}
        self.running: dict[int, Sequence] = {}
        self.decoding: dict[int, Sequence] = {}  # those of the running ones that a decode run computes
        self.preemptions = self.prefill_tokens = 0

    def _matched(self, request_id: int) -> int:
        sequence = self.waiting[request_id]
        return self.cache.matched_length(sequence.tokens, sequence.domain)

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence; its prompt and answer together must fit the cache."""
        self._wait(sequence, front=False)

    def _wait(self, sequence: Sequence, *, front: bool) -> None:
        self.waiting[sequence.request_id] = sequence
        self.policy.add(sequence.request_id, sequence.client, sequence.tokens.tobytes(), front=front)

    def has_work(self) -> bool:
        return bool(self.waiting or self.running)

    def has_others(self) -> bool:
        """Whether `schedule` may find work beside what is decoding."""
        return len(self.running) > len(self.decoding) or (bool(self.waiting) and len(self.running) < self.max_running)

    def schedule(self) -> Step:
        """Choose the tokens of the next step and give them pages; the caller must then compute it.

        One token of each sequence that is decoding is computed beside it.
        """
        step = Step()
        budget, preempted = self._continue_running(step, max(0, self.max_batch_tokens - len(self.decoding)))
        if not preempted:
            budget, lent = self._look_ahead(step, budget)
            self._admit_waiting(step, budget)
            for pages in lent:  # the next step, which may write them, is computed after this one
                self._give_back(pages)
        return step

    def finish(self, sequence: Sequence) -> None:
        """Give back the pages; the prompt stays in the prefix cache."""
        del self.running[sequence.request_id]
        self.policy.finish(sequence.request_id, len(sequence) - sequence.prompt_length)
        self._release(sequence)

    def decode(self, sequences: Iterable[Sequence]) -> None:
        """Leave these running sequences to a decode run, until `decoded`."""
        self.decoding |= {sequence.request_id: sequence for sequence in sequences}

    def serve_decoding(self, sequence: Sequence, tokens: int) -> None:
        """Charge the tokens that a decode run has computed of a sequence so far."""
        output = sequence.computed + tokens - sequence.prompt_length
        self.policy.serve(sequence.request_id, sequence.prompt_length, output)

    def decoded(self, sequence: Sequence, tokens: int, pages: Pages) -> None:
        """Take a sequence back, with tokens that were computed into pages that were allocated for them."""
        del self.decoding[sequence.request_id]
        self.serve_decoding(sequence, tokens)
        sequence.computed += tokens
        sequence.table = np.concatenate([sequence.table, pages])

    def cancel(self, request_ids: Iterable[int]) -> None:
        """Forget these sequences, where they are known."""
        for request_id in request_ids:
            if self.waiting.pop(request_id, None) is not None:
                self.policy.remove(request_id)
                self.policy.finish(request_id)  # where it was preempted
            if (sequence := self.running.get(request_id)) is not None:
                self.finish(sequence)

    def check_integrity(self) -> None:
        """Assert the invariants of cache and sequences."""
        self.cache.check_integrity(sequence.owned_pages for sequence in self.running.values())
        for sequence in self.running.values():
            assert len(sequence.table) == self.cache.pool.pages_for(sequence.computed), "a table of wrong length"
            assert sequence.node is not None, "a running sequence without a place in the tree"
            assert sequence.node.end <= sequence.computed, "the tree claims tokens that were not computed"

    def _continue_running(self, step: Step, budget: int) -> tuple[int, bool]:
        """Schedule the running sequences that no decode run has; also whether one was preempted for lack of pages."""
        preempted = False
        sequences = [sequence for number, sequence in self.running.items() if number not in self.decoding]
        for sequence in sequences:
            if not budget:
                break
            end = min(len(sequence), sequence.computed + budget)
            while not self._grow(sequence, end):
                preempted = True
                victim = sequences.pop()  # the youngest; never scheduled before its elders
                self._preempt(victim)
                if victim is sequence:
                    return budget, preempted
            budget -= end - sequence.computed
            self._compute(step, sequence, end)
        return budget, preempted

    def _look_ahead(self, step: Step, budget: int) -> tuple[int, list[Pages]]:
        """Schedule what may follow the sequences' last tokens, too, in pages that are lent for this step."""
        lent: list[Pages] = []
        for chunk in [chunk for chunk in step.chunks if chunk.sequence.ahead and chunk.is_last]:
            ahead = chunk.sequence.ahead
            tokens = sum(len(branch.tokens) for branch in ahead)
            if tokens <= budget and max(branch.end for branch in ahead) <= chunk.sequence.room:
                pages = self._branch_off(step, chunk, ahead)
                lent += pages
                budget -= tokens if pages else 0
        return budget, lent

    def _branch_off(self, step: Step, chunk: Chunk, ahead: tuple[Branch, ...]) -> list[Pages]:
        """Chunks of the branches behind a chunk; returns the pages that they need, or none if there are too few."""
        size, known = self.cache.page_size, chunk.end
        starts = [known + branch.end - len(branch.tokens) for branch in ahead]
        counts = [self.cache.pool.pages_for(known + b.end) - s // size for b, s in zip(ahead, starts, strict=True)]
        pages = self.cache.allocate(sum(counts))
        if pages is None:
            return []
        chunks: list[Chunk] = []
        parts = np.split(pages, np.cumsum(counts)[:-1])
        for i, (branch, start, own) in enumerate(zip(ahead, starts, parts, strict=True)):
            table = chunk.table if branch.parent < 0 else chunks[branch.parent].table
            if start % size:
                step.copies.append(PageCopy(int(table[-1]), int(own[0]), start % size))
            table = np.concatenate([table[: start // size], own])
            tokens = np.array(branch.tokens, np.int32)
            chunks.append(Chunk(chunk.sequence, start, known + branch.end, tokens, table, i))
        step.chunks += chunks
        return parts

    def _give_back(self, pages: Pages) -> None:
        self.cache.pool.unpin(pages)
        self.cache.pool.release(pages)

    def _admit_waiting(self, step: Step, budget: int) -> None:
        self.policy.refresh()
        while budget and len(self.running) < self.max_running and (chosen := self.policy.next()) is not None:
            sequence = self.waiting[chosen]
            if not self._admit(step, sequence):
                break
            self.policy.admit(chosen, sequence.computed)
            del self.waiting[chosen]
            end = min(len(sequence), sequence.computed + budget)
            if not self._grow(sequence, end):  # _admit has made sure that there are pages
                message = "admission promised pages that are not there"
                raise AssertionError(message)
            budget -= end - sequence.computed
            self._compute(step, sequence, end)

    def _admit(self, step: Step, sequence: Sequence) -> bool:
        """Start a sequence behind its longest cached prefix, if all its known tokens fit beside the running ones."""
        cache, size = self.cache, self.cache.page_size
        node = cache.match(sequence.tokens[:-1], sequence.domain)  # the last token is always computed, for its logits
        cache.lock(node)
        needed = cache.pool.pages_for(len(sequence)) - node.end // size + len(self.running)
        if needed > cache.pool.available:
            cache.unlock(node)
            if self.running:
                return False
            cache.clear()  # alone, without the slack pages of a branchy path, it fits by the contract of `add`
            node = cache.root(sequence.domain)
            cache.lock(node)
        sequence.node, sequence.computed = node, node.end
        sequence.table, sequence.owned_from = cache.table(node), node.end // size
        if sequence.cached is None:
            sequence.cached = min(node.end, sequence.prompt_length)
        if node.end % size:
            self._own_partial_page(step, sequence)
        self.running[sequence.request_id] = sequence
        return True

    def _own_partial_page(self, step: Step, sequence: Sequence) -> None:
        source = int(sequence.table[-1])
        own = self.cache.allocate(1)
        assert own is not None, "admission promised pages that are not there"
        sequence.table = np.concatenate([sequence.table[:-1], own])
        step.copies.append(PageCopy(source, int(own[0]), sequence.computed % self.cache.page_size))

    def _grow(self, sequence: Sequence, end: int) -> bool:
        """Give the sequence pages up to position `end`."""
        missing = self.cache.pool.pages_for(end) - len(sequence.table)
        if missing <= 0:
            return True
        pages = self.cache.allocate(missing)
        if pages is None:
            return False
        sequence.table = np.concatenate([sequence.table, pages])
        return True

    def _compute(self, step: Step, sequence: Sequence, end: int) -> None:
        start, sequence.computed = sequence.computed, end
        output = len(sequence) - sequence.prompt_length
        if start < sequence.prompt_length or not output % CHARGED_TOKENS:
            self.policy.serve(sequence.request_id, min(end, sequence.prompt_length), output)
        step.chunks.append(Chunk(sequence, start, end, sequence.tokens[start:end], sequence.table))
        if start < sequence.prompt_length:
            self.prefill_tokens += min(end, sequence.prompt_length) - start
            self._insert(sequence, min(end, sequence.prompt_length))

    def _insert(self, sequence: Sequence, end: int) -> None:
        node = sequence.node
        assert node is not None, "a running sequence without a place in the tree"
        if end > node.end:
            sequence.node = self.cache.insert(node, sequence.tokens[node.end : end], sequence.table)

    def _preempt(self, sequence: Sequence) -> None:
        """Back to the head of the queue; what the cache does not evict meanwhile is not computed again."""
        del self.running[sequence.request_id]
        self._insert(sequence, sequence.computed)
        self._release(sequence)
        self.preemptions += 1
        self._wait(sequence, front=True)

    def _release(self, sequence: Sequence) -> None:
        owned, node = sequence.owned_pages, sequence.node
        assert node is not None, "a running sequence without a place in the tree"
        self.cache.unlock(node)
        self._give_back(owned)
        sequence.reset()
