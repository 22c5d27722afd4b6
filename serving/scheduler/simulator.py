"""A discrete-event simulator of an engine, to try policies on: the same objects, no model.

A step computes prompt chunks and one answer token of each running request, and takes

    fixed + per_token * (tokens computed) + per_resident * (tokens in the KV cache)    seconds.

Cached prefixes are those used last, up to a number of them; answers have their place in the KV cache reserved.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from spark_llm.serving.core import ClientRef
from spark_llm.serving.scheduler.policy import Policy


@dataclass(frozen=True, slots=True)
class SimulatedRequest:
    """`prompt` tokens, of which the first `shared` are those of prefix number `prefix`; `output` answer tokens."""

    client: ClientRef
    prompt: int
    output: int
    arrival: float = 0.0
    prefix: int = -1
    shared: int = 0


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds of a step."""

    fixed: float = 0.012
    per_token: float = 6e-5
    per_resident: float = 3e-8

    def __call__(self, computed: int, resident: int) -> float:
        return self.fixed + self.per_token * computed + self.per_resident * resident


class GapMeter:
    """The largest difference of service, by weight, of two clients over any time in which both had requests waiting."""

    def __init__(self) -> None:
        self.widest = 0.0
        self._ranges: dict[tuple[str, str], tuple[float, float]] = {}

    def observe(self, service: dict[str, float], waiting: Iterable[str]) -> None:
        """Once a step: each client's service so far, and who waits."""
        pairs = set(combinations(sorted(waiting), 2))
        self._ranges = {pair: reach for pair, reach in self._ranges.items() if pair in pairs}
        for pair in pairs:
            ahead = service.get(pair[0], 0.0) - service.get(pair[1], 0.0)
            low, high = self._ranges.get(pair, (ahead, ahead))
            low, high = self._ranges[pair] = min(low, ahead), max(high, ahead)
            self.widest = max(self.widest, high - low)


@dataclass(slots=True)
class Outcome:
    """What a run gave. `finished`: when each request ended; `waited`: when each began."""

    steps: int = 0
    seconds: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    finished: dict[int, float] = field(default_factory=dict)
    waited: dict[int, float] = field(default_factory=dict)

    @property
    def hit_rate(self) -> float:
        return self.cached_tokens / max(1, self.prompt_tokens)

    @property
    def tokens_per_second(self) -> float:
        return (self.prompt_tokens + self.output_tokens) / self.seconds

    def done(self, clients: Sequence[ClientRef], name: str) -> float:
        """When the last request of a client ended; `clients` by request number."""
        return max(at for number, at in self.finished.items() if clients[number].name == name)


@dataclass(slots=True)
class _Running:
    number: int
    request: SimulatedRequest
    prompt: int
    output: int = 0


class Simulator:
    """One engine under one policy.

    Parameters
    ----------
    kv_tokens : int
        Size of the KV cache; a request takes its prompt and its answer of it from admission to end.
    step_tokens : int
        Tokens computed in one step at most: longer prompts are cut into chunks.
    prefixes : int
        Shared prefixes that stay cached.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        kv_tokens: int = 40_000,
        step_tokens: int = 2048,
        max_running: int = 256,
        prefixes: int = 8,
        step_time: StepTime | None = None,
    ) -> None:
        self.policy, self.outcome, self.gap = policy, Outcome(), GapMeter()
        self.kv_tokens, self.max_running = kv_tokens, max_running
        self.running: list[_Running] = []
        self.free = kv_tokens
        self._step_tokens, self._step_time = step_tokens, step_time or StepTime()
        self._cached: OrderedDict[int, None] = OrderedDict()
        self._prefixes = prefixes
        self._requests: dict[int, SimulatedRequest] = {}
        self._arrivals: deque[tuple[float, int]] = deque()
        policy.matched = self._matched

    @property
    def now(self) -> float:
        return self.outcome.seconds

    def submit(self, requests: Iterable[SimulatedRequest]) -> None:
        """Requests to come, numbered from 0 on in the order given."""
        for request in requests:
            self._requests[len(self._requests)] = request
        due = sorted((request.arrival, number) for number, request in self._requests.items())
        self._arrivals = deque(arrival for arrival in due if arrival[0] >= self.now)

    def run(self) -> Outcome:
        """Step until everything is answered."""
        while self.step():
            pass
        return self.outcome

    def step(self) -> bool:
        """One step; False once all is done."""
        if not (self.running or len(self.policy) or self._arrivals):
            return False
        if not (self.running or len(self.policy)):
            self.outcome.seconds = max(self.now, self._arrivals[0][0])
        self._receive()
        budget = self._step_tokens
        for one in self.running:
            budget = self._compute(one, budget)
        budget = self._admit(budget)
        computed = self._step_tokens - budget
        self._decode()
        resident = sum(one.prompt + one.output for one in self.running)
        self.outcome.steps += 1
        self.outcome.seconds += self._step_time(computed + len(self.running), resident)
        self.gap.observe(self.policy.service, self.policy.waiting)
        self._end_finished()
        return True

    def fits(self, number: int) -> bool:
        """Whether a request could begin now."""
        request = self._requests[number]
        return len(self.running) < self.max_running and request.prompt + request.output <= self.free

    def _receive(self) -> None:
        while self._arrivals and self._arrivals[0][0] <= self.now:
            number = self._arrivals.popleft()[1]
            request = self._requests[number]
            key = request.prefix.to_bytes(8, "big", signed=True) + number.to_bytes(8, "big")
            self.policy.add(number, request.client, key)

    def _admit(self, budget: int) -> int:
        self.policy.refresh()
        while budget and (number := self.policy.next()) is not None and self.fits(number):
            request, cached = self._requests[number], self._matched(number)
            if cached == request.prompt:
                cached -= 1  # the last token gives the first answer token
            self.outcome.prompt_tokens += request.prompt
            self.outcome.cached_tokens += cached
            self.outcome.waited[number] = self.now - request.arrival
            self.free -= request.prompt + request.output
            self.policy.admit(number, cached)
            one = _Running(number, request, cached)
            self.running.append(one)
            budget = self._compute(one, budget)
        return budget

    def _compute(self, one: _Running, budget: int) -> int:
        chunk = min(budget, one.request.prompt - one.prompt)
        if chunk:
            one.prompt += chunk
            self.policy.serve(one.number, one.prompt, one.output)
        self._touch(one.request)
        return budget - chunk

    def _decode(self) -> None:
        for one in self.running:
            if one.prompt == one.request.prompt and one.output < one.request.output:
                one.output += 1
                self.outcome.output_tokens += 1
                self.policy.serve(one.number, one.prompt, one.output)

    def _end_finished(self) -> None:
        ended = [one for one in self.running if one.output == one.request.output and one.prompt == one.request.prompt]
        for one in ended:
            self.running.remove(one)
            self.free += one.request.prompt + one.request.output
            self.outcome.finished[one.number] = self.now
            self.policy.finish(one.number, one.output)

    def _matched(self, number: int) -> int:
        request = self._requests[number]
        return request.shared if request.prefix in self._cached else 0

    def _touch(self, request: SimulatedRequest) -> None:
        if request.prefix >= 0:
            self._cached[request.prefix] = None
            self._cached.move_to_end(request.prefix)
            if len(self._cached) > self._prefixes:
                self._cached.popitem(last=False)


def run_hosts(
    requests: Iterable[SimulatedRequest],
    simulators: Mapping[str, Simulator],
    choose: Callable[[SimulatedRequest, Mapping[str, int]], str],
) -> None:
    """Send each request to the host that `choose` names, told how many of its tokens are cached where; run them all."""
    load: dict[str, list[SimulatedRequest]] = {host: [] for host in simulators}
    sent: dict[str, set[int]] = {host: set() for host in simulators}
    for request in requests:
        host = choose(request, {name: request.shared * (request.prefix in sent[name]) for name in simulators})
        sent[host].add(request.prefix)
        load[host].append(request)
    for host, simulator in simulators.items():
        simulator.submit(load[host])
        simulator.run()
