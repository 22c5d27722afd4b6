"""The scheduler, driven by a simulated model whose keys are the hash of the prefix that they stand for."""

import zlib

import numpy as np
import pytest
from spark_llm.serving.cache.radix import PrefixCache
from spark_llm.serving.core import ClientRef
from spark_llm.serving.scheduler.lpm import LongestPrefixMatch
from spark_llm.serving.scheduler.policies import POLICIES, create_policy
from spark_llm.serving.scheduler.scheduler import Scheduler
from spark_llm.serving.scheduler.sequence import Branch, Sequence

from tests.serving.native_checkpoints import trie_size


class Simulation:
    """Runs steps on pages that hold prefix hashes; a sequence ends after its number of answer tokens."""

    def __init__(self, pages=64, page_size=4, *, budget=32, running=16, policy=None, looks_ahead=False) -> None:
        self.cache = PrefixCache(pages, page_size)
        self.size = page_size
        self.scheduler = Scheduler(self.cache, max_batch_tokens=budget, max_running=running, policy=policy)
        self.content = np.full(pages * page_size, -1, np.int64)
        self.answers, self.limits, self.steps, self.order = {}, {}, 0, []
        self.looks_ahead, self.ahead = looks_ahead, 0

    def add(self, request_id, prompt, answer=3) -> None:
        self.limits[request_id] = answer
        client = ClientRef(f"query {request_id % 3}", f"pool {request_id % 2}", 1 + request_id % 2)
        self.scheduler.add(Sequence(request_id, np.array(prompt, np.int32), answer, client=client))

    def step(self) -> None:
        step = self.scheduler.schedule()
        self.scheduler.check_integrity()
        assert sum(c.end - c.start for c in step.chunks) <= self.scheduler.max_batch_tokens
        self.steps += 1
        for chunk in step.chunks:
            for p in range(chunk.start, chunk.end):
                self.content[self.slot(chunk.table, p)] = self.key(self.way(chunk), p)
        for copy in step.copies:
            source, target = copy.source * self.size, copy.target * self.size
            self.content[target : target + copy.tokens] = self.content[source : source + copy.tokens]
        for chunk in step.chunks:
            seen = [self.content[self.slot(chunk.table, p)] for p in range(chunk.end)]
            assert seen == [self.key(self.way(chunk), p) for p in range(chunk.end)]
            assert chunk.tokens.tolist() == self.way(chunk)[chunk.start : chunk.end].tolist()
        computed = {(chunk.sequence.request_id, chunk.branch) for chunk in step.chunks}
        self.ahead += len(computed) - len({request_id for request_id, _ in computed})
        for chunk in step.chunks:
            if chunk.is_last and chunk.branch < 0:
                self.advance(chunk.sequence, computed)

    def advance(self, sequence, computed) -> None:
        """Take the next token, and those behind it whose branches were computed."""
        at = -1
        while (sequence.request_id, at) in computed and len(sequence.output) < self.limits[sequence.request_id]:
            token = self.answer(sequence.tokens)
            sequence.extend([token])
            at = sequence.branch(at, [token])
        sequence.ahead = self.branches(sequence) if self.looks_ahead else ()
        if len(sequence.output) == self.limits[sequence.request_id]:
            self.answers[sequence.request_id] = sequence.output.tolist()
            self.order.append(sequence.request_id)
            self.scheduler.finish(sequence)

    def branches(self, sequence) -> tuple[Branch, ...]:
        """A tree of the answer tokens that may follow, three deep, with some of them missing."""
        rng, made, ends = np.random.default_rng(len(sequence)), [], [(-1, 0)]
        for parent, end in ends:
            for token in rng.choice(range(100, 105), 2, replace=False).tolist() if end < 3 else ():
                ends.append((len(made), end + 1))
                made.append(Branch(parent, end + 1, (token,)))
        return tuple(made)

    @staticmethod
    def way(chunk):
        """All tokens up to the end of a chunk."""
        parts, at = [], chunk.branch
        while at >= 0:
            branch = chunk.sequence.ahead[at]
            parts, at = [branch.tokens, *parts], branch.parent
        return np.concatenate([chunk.sequence.tokens, *parts]).astype(np.int32)

    def run(self) -> None:
        while self.scheduler.has_work():
            self.step()

    def slot(self, table, position) -> int:
        return int(table[position // self.size]) * self.size + position % self.size

    @classmethod
    def answer(cls, tokens) -> int:
        """The next token: a function of the whole prefix, and none of those in prompts."""
        return 100 + cls.key(tokens, len(tokens) - 1) % 5

    @staticmethod
    def key(tokens, position) -> int:
        return zlib.crc32(tokens[: position + 1].tobytes())


def prompts_of(rng, count, depth=4) -> list[list[int]]:
    """Prompts that share prefixes of odd lengths."""
    made = [[9]]
    for _ in range(count):
        base = made[int(rng.integers(len(made)))]
        base = base[: int(rng.integers(1, len(base) + 1))]
        made.append([*base, *rng.integers(0, 3, int(rng.integers(1, depth * 4))).tolist()])
    return made[1:]


def expected(prompts, answer=3) -> dict:
    alone = {}
    for i, prompt in enumerate(prompts):
        tokens = np.array(prompt, np.int32)
        for _ in range(answer):
            tokens = np.append(tokens, np.int32(Simulation.answer(tokens))).astype(np.int32)
        alone[i] = tokens[len(prompt) :].tolist()
    return alone


@pytest.mark.parametrize("page_size", [1, 4, 16])
@pytest.mark.parametrize("budget", [5, 32, 1000])
def test_every_distinct_prefix_token_is_computed_once(page_size, budget):
    """At any budget: only the last token of a prompt that another one repeats or continues is computed again."""
    rng = np.random.default_rng(page_size + budget)
    prompts = prompts_of(rng, 40)
    simulation = Simulation(pages=2000 // page_size + 100, page_size=page_size, budget=budget, running=64)
    for i, prompt in enumerate(prompts):
        simulation.add(i, prompt)
    simulation.run()
    again = sum(
        any(other[: len(p)] == p and (len(other), j) > (len(p), i) for j, other in enumerate(prompts))
        for i, p in enumerate(prompts)
    )
    assert simulation.answers == expected(prompts)
    computed = simulation.scheduler.prefill_tokens
    assert trie_size(prompts) <= computed <= trie_size(prompts) + again


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("order", ["sorted", "reversed", "shuffled", "bursts"])
@pytest.mark.parametrize("budget", [48, 200, 2048])
def test_computed_prompt_tokens_are_the_nodes_of_the_trie_in_any_order(order, budget, seed):
    """Rows as a query has them (instruction, fields that repeat, a cell of their own), in a cache that just holds them.

    The least budget cuts every prompt into several chunks; bursts arrive while others are computed or decoded.
    """
    rng = np.random.default_rng(seed)
    instruction, films = rng.integers(0, 50, 37).tolist(), [rng.integers(0, 50, 60).tolist() for _ in range(6)]
    critics = [rng.integers(0, 50, int(rng.integers(3, 20))).tolist() for _ in range(9)]
    prompts = [
        instruction + films[i % 6] + critics[int(rng.integers(9))] + rng.integers(0, 50, 25).tolist() for i in range(80)
    ]
    prompts.sort(reverse=order == "reversed")
    if order in ("shuffled", "bursts"):
        prompts = [prompts[i] for i in rng.permutation(len(prompts))]
    distinct = trie_size(prompts)
    simulation = Simulation(pages=3 * distinct // 32, page_size=16, budget=budget, running=24)
    for i, prompt in enumerate(prompts):
        simulation.add(i, prompt)
        while order == "bursts" and rng.random() < 0.3:
            simulation.step()
    simulation.run()
    assert len(simulation.answers) == len(prompts)
    assert distinct <= simulation.scheduler.prefill_tokens <= 1.02 * distinct


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("page_size", [1, 4])
def test_preemption_eviction_and_cancels_change_no_answer(page_size, name):
    rng = np.random.default_rng(page_size)
    preemptions = evicted = 0
    for _ in range(8):
        prompts = prompts_of(rng, 30, depth=2)
        longest = max(map(len, prompts)) + 12
        pages = 2 + -(-longest // page_size)
        policy = create_policy(name, quantum=40)
        simulation = Simulation(pages, page_size, budget=int(rng.integers(3, 40)), running=8, policy=policy)
        for i, prompt in enumerate(prompts):
            simulation.add(i, prompt, answer=12)
        dropped = set(rng.integers(0, 30, 4).tolist())
        for request_id in dropped:
            simulation.step()
            simulation.scheduler.cancel([request_id])
            simulation.scheduler.check_integrity()
        simulation.run()
        whole = expected(prompts, answer=12)
        assert all(whole[i] == answer for i, answer in simulation.answers.items())
        assert set(simulation.answers) >= set(range(30)) - dropped
        simulation.cache.clear()
        assert simulation.cache.pool.free == pages
        assert not policy._tickets
        assert not policy._accounts
        assert not policy.waiting
        preemptions += simulation.scheduler.preemptions
        evicted += simulation.cache.evicted_tokens
    assert preemptions > 0
    assert evicted > 0


@pytest.mark.parametrize("page_size", [1, 4, 16])
@pytest.mark.parametrize("pages", [6, 12, 200])
def test_branches_save_steps_and_change_no_answer(page_size, pages):
    """Trees of what may follow, in roomy caches and in some where there is no page for them."""
    rng = np.random.default_rng(page_size + pages)
    prompts = prompts_of(rng, 30, depth=2)
    pages = max(pages, 2 + -(-(max(map(len, prompts)) + 12) // page_size))
    steps, branches = {}, {}
    for looks_ahead in (True, False):
        simulation = Simulation(pages, page_size, budget=60, running=8, looks_ahead=looks_ahead)
        for i, prompt in enumerate(prompts):
            simulation.add(i, prompt, answer=12)
        simulation.run()
        assert simulation.answers == expected(prompts, answer=12)
        simulation.cache.clear()
        assert simulation.cache.pool.free == pages
        steps[looks_ahead], branches[looks_ahead] = simulation.steps, simulation.ahead
    assert branches[False] == 0
    assert (branches[True] and steps[True] < steps[False]) or pages < 200


def test_a_sequence_may_fill_the_whole_cache():
    simulation = Simulation(pages=4, page_size=4, budget=100)
    simulation.add(0, [1, 2, 3, 4, 5, 6, 7])
    simulation.run()
    simulation.add(1, [1, 2, 3, 4, 5, 9, 9], answer=9)
    simulation.run()
    assert len(simulation.answers[1]) == 9


def test_longest_prefix_match_admits_the_hot_prefix_first():
    simulation = Simulation(running=1, policy=LongestPrefixMatch())
    for i, prompt in enumerate([[1] * 8, [2] * 8, [1] * 7 + [3]]):
        simulation.add(i, prompt)
    simulation.run()
    assert simulation.order == [0, 2, 1]


def test_decode_is_not_starved_by_a_long_prompt():
    simulation = Simulation(pages=200, budget=8)
    simulation.add(0, [1, 2], answer=10)
    simulation.step()
    simulation.add(1, list(range(300)), answer=1)
    for _ in range(9):
        simulation.step()
    assert 0 in simulation.answers
    assert 1 not in simulation.answers
