"""The policies under the simulator: their invariants at every step of random traces, and what they trade."""

import itertools
import random
from collections import Counter

import pytest
from spark_llm.serving.core import Call, ClientRef, Request
from spark_llm.serving.scheduler.backlog import Backlog
from spark_llm.serving.scheduler.cost import MeanLength, QuadraticCost, TokenCost
from spark_llm.serving.scheduler.d2lpm import HostDeficits
from spark_llm.serving.scheduler.policies import POLICIES, create_policy
from spark_llm.serving.scheduler.rpm import RequestsPerMinute
from spark_llm.serving.scheduler.simulator import GapMeter, SimulatedRequest, Simulator, run_hosts

TRACES, TRACES_PER_SEED = 10_000, 500
KV_TOKENS, LONGEST, OUTPUT, QUANTUM, STEP_TOKENS = 60, 24, 8, 40.0, 16
U = max(1 * LONGEST, 2 * KV_TOKENS)
CONSERVING = [name for name in POLICIES if name != "rpm"]


class CheckedSimulator(Simulator):
    """Asserts, in each step, that nothing waits that could run, and what the policy promises of its levels."""

    def __init__(self, policy, **options):
        super().__init__(policy, **options)
        self.meters = {}

    def _admit(self, budget):
        left = super()._admit(budget)
        waiting = self.policy.next()
        assert waiting is None or not left or not self.fits(waiting), "the engine idles while someone could run"
        assert (waiting is None) == (not len(self.policy))
        return left

    def step(self):
        more = super().step()
        service_of = self.policy.service
        assert sum(service_of.values()) >= 0
        if hasattr(self.policy, "pools"):
            weights = {one.client.pool: one.client.weight for one in self._requests.values()}
            self.check_level("pools", self.policy.pools, min(weights.values()), service_of)
            for pool, clients in self.policy.clients.items():
                self.check_level(pool, clients, 1.0, service_of)
        return more

    def check_level(self, name, level, weight, service_of):
        waiting = list(level.waiting)
        if hasattr(level, "counters"):
            counters = [level.counters[one] for one in waiting]
            assert not counters or max(counters) - min(counters) <= U / weight
            bound = 2 * U / weight
        else:
            assert all(-U / weight < level.credit[one] <= QUANTUM for one in waiting)
            bound = 2 * (U / weight + QUANTUM)
        service = Counter()
        for client, amount in service_of.items():
            pool = self.policy._pool_of[client]
            if name == "pools":
                service[pool] += amount / WEIGHTS[pool]
            elif pool == name:
                service[client] += amount
        meter = self.meters.setdefault(name, GapMeter())
        meter.observe(service, waiting)
        assert meter.widest <= bound


WEIGHTS = {"one": 1.0, "two": 2.0}


def clients_of(count):
    return [ClientRef(f"{pool} {i}", pool, WEIGHTS[pool]) for i in range(count) for pool in ("one", "two")][:count]


def trace(rng):
    """A burst, and requests that come one by one; lengths and clients at random."""
    clients, at = clients_of(rng.randint(2, 4)), 0.0
    for _ in range(rng.randint(6, 16)):
        at += rng.choice((0.0, 0.0, 0.02, 0.2))
        shared = rng.randint(0, 12)
        prompt = rng.randint(shared + 1, LONGEST)
        yield SimulatedRequest(rng.choice(clients), prompt, rng.randint(1, OUTPUT), at, rng.randint(0, 3), shared)


@pytest.mark.parametrize("policy", ["vtc", "dlpm"])
@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in range(1, TRACES // TRACES_PER_SEED))]
)
def test_bounds_hold_at_every_step_of_random_traces(policy, seed):
    rng = random.Random(seed)
    for _ in range(TRACES_PER_SEED):
        options = {"kv_tokens": KV_TOKENS, "step_tokens": STEP_TOKENS, "max_running": rng.choice((2, 4, 100))}
        simulator = CheckedSimulator(create_policy(policy, quantum=QUANTUM), prefixes=2, **options)
        requests = list(trace(rng))
        simulator.submit(requests)
        assert len(simulator.run().finished) == len(requests)


@pytest.mark.parametrize("policy", CONSERVING)
def test_nothing_waits_that_could_run_and_all_is_answered(policy):
    rng = random.Random(policy)
    for _ in range(100):
        simulator = CheckedSimulator(
            create_policy(policy, quantum=QUANTUM), kv_tokens=KV_TOKENS, step_tokens=STEP_TOKENS, prefixes=2
        )
        requests = list(trace(rng))
        simulator.submit(requests)
        outcome = simulator.run()
        assert len(outcome.finished) == len(requests)
        served = sum(one.output for one in requests) * 2 + outcome.prompt_tokens - outcome.cached_tokens
        assert sum(simulator.policy.service.values()) == pytest.approx(served)


@pytest.mark.parametrize("policy", ["vtc", "dlpm"])
def test_shares_follow_the_weights_of_pools_and_are_equal_within(policy):
    weights = {"a": 1.0, "b": 2.0, "c": 4.0}
    clients = [ClientRef(f"{pool}{i}", pool, weight) for pool, weight in weights.items() for i in range(2)]
    simulator = Simulator(create_policy(policy, quantum=500), kv_tokens=4000)
    simulator.submit([SimulatedRequest(client, 64, 32) for _ in range(2000) for client in clients])
    while simulator.now < 60:
        simulator.step()
    assert len(simulator.policy.waiting) == len(clients), "all are backlogged"
    service = simulator.policy.service
    by_pool = {pool: service[f"{pool}0"] + service[f"{pool}1"] for pool in weights}
    for pool, weight in weights.items():
        assert by_pool[pool] / sum(by_pool.values()) == pytest.approx(weight / 7, rel=0.05)
        assert service[f"{pool}0"] == pytest.approx(service[f"{pool}1"], rel=0.05)


def prefix_load(seed=1):
    """The set-up of docs/scheduling.md: four clients, 16 private prefixes each, all queued at once."""
    rng = random.Random(seed)
    return [
        SimulatedRequest(ClientRef(f"client {c}"), 1088, 32, prefix=16 * c + rng.randrange(16), shared=1024)
        for c, count in enumerate((600, 200, 200, 200))
        for _ in range(count)
    ]


def test_dlpm_keeps_the_hits_of_lpm_and_the_fairness_of_vtc():
    runs = {}
    for name in CONSERVING:
        runs[name] = Simulator(create_policy(name))
        runs[name].policy._limit = len(prefix_load())
        runs[name].submit(prefix_load())
        runs[name].run()
    hits = {name: run.outcome.hit_rate for name, run in runs.items()}
    gaps = {name: run.gap.widest for name, run in runs.items()}
    assert hits["dlpm"] >= 0.95 * hits["lpm"]
    assert hits["vtc"] < 0.6 * hits["fcfs"]
    assert runs["dlpm"].now <= 1.15 * runs["lpm"].now
    assert gaps["dlpm"] <= 0.1 * min(gaps["lpm"], gaps["fcfs"])


def run_vtc(*requests, **options):
    simulator = Simulator(create_policy("vtc"), kv_tokens=1000, max_running=1, **options)
    simulator.submit(requests)
    return simulator


def test_idle_time_banks_no_credit():
    heavy, late = ClientRef("heavy"), ClientRef("late")
    requests = [SimulatedRequest(heavy, 10, 10) for _ in range(60)]
    simulator = run_vtc(*requests, *(SimulatedRequest(late, 10, 10, arrival=2.0) for _ in range(30)))
    while "late" not in simulator.policy.waiting:
        simulator.step()
    before = dict(simulator.policy.service)
    while len(simulator.policy.waiting) == 2:
        simulator.step()
    served = {name: simulator.policy.service[name] - before.get(name, 0.0) for name in ("heavy", "late")}
    assert served["heavy"] > 0.8 * served["late"]


def test_the_lift_holds_when_all_queues_were_empty():
    """A alone drains its queue; B, then A, come back: B owes A nothing for the time before."""
    a, b = ClientRef("a"), ClientRef("b")
    first = [SimulatedRequest(b, 10, 1), *(SimulatedRequest(a, 10, 10, arrival=0.1) for _ in range(20))]
    again = [SimulatedRequest(client, 10, 10, arrival=1000.0) for client in (b, a) for _ in range(20)]
    simulator = run_vtc(*first, *again)
    while simulator.now < 1000 or len(simulator.policy.waiting) < 2:
        simulator.step()
    before = dict(simulator.policy.service)
    while len(simulator.policy.waiting) == 2:
        simulator.step()
    gained = [simulator.policy.service[name] - before.get(name, 0.0) for name in "ab"]
    assert gained[0] == pytest.approx(gained[1], abs=60)


def test_a_newcomer_has_no_credit_and_who_returns_at_most_one_quantum():
    policy = create_policy("dlpm", quantum=100)
    policy.add(1, ClientRef("a"))
    policy.next()
    level = policy.clients["default"]
    policy.add(2, ClientRef("b"))
    assert level.credit == {"a": 100.0, "b": 0.0}
    policy.remove(2)
    for number in range(10, 30):
        policy.add(number, ClientRef("a"))
        policy.admit(policy.next())
        policy.serve(number - 9 if number == 10 else number - 1, 100, 0)
    assert level.refills > 5
    policy.add(3, ClientRef("b"))
    assert level.credit["b"] == 100.0


def test_predicted_lengths_are_charged_first_and_corrected_last():
    policy = create_policy("vtc", predict=True)
    client = ClientRef("a")
    for number, (output, at_admission) in enumerate([(10, 0.0), (20, 20.0), (4, 24.0)]):
        policy.add(number, client)
        before = policy.service.get("a", 0.0)
        policy.admit(number)
        assert policy.service.get("a", 0.0) - before == at_admission
        policy.serve(number, 7, 0)
        for token in range(output):
            policy.serve(number, 7, token + 1)
        policy.finish(number)
        assert policy.service["a"] - before == 7 + 2 * output
    lengths = MeanLength()
    assert lengths.predict("nobody") == 0


def test_a_preempted_request_is_charged_once():
    policy = create_policy("dlpm", quantum=100)
    policy.add(0, ClientRef("a"))
    policy.admit(0, cached=4)
    policy.serve(0, 20, 0)
    policy.serve(0, 20, 5)
    policy.add(0, ClientRef("a"), front=True)
    assert policy.next() == 0
    policy.admit(0, cached=16)
    policy.serve(0, 20, 6)
    policy.finish(0)
    assert policy.service["a"] == 16 + 2 * 6
    assert not policy._accounts


def test_reserved_prompt_tokens_are_charged_until_the_step_says_what_it_was():
    policy = create_policy("vtc")
    policy.add(0, ClientRef("a"))
    policy.admit(0, cached=10, reserved=100)
    assert policy.service["a"] == 90
    policy.serve(0, 40, 0)
    assert policy.service["a"] == 30


def test_costs_are_fitted_to_measurements():
    true = QuadraticCost(0.2, 0.1, 0.004, 0.003, 1.1)
    measured = [(x, y, true(x, y)) for x in (10, 100, 500) for y in (1, 50, 300)]
    fitted = QuadraticCost.fit(measured)
    assert fitted(200, 100) == pytest.approx(true(200, 100))
    assert TokenCost()(3, 4) == 11
    policy = create_policy("vtc", cost=true)
    policy.add(0, ClientRef("a"))
    policy.admit(0)
    for output in range(1, 31):
        policy.serve(0, 64, output)
    assert policy.service["a"] == pytest.approx(true(64, 30)), "chunk by chunk and token by token, it adds up"


def test_a_rate_limit_holds_back_whoever_is_over_it():
    now = [0.0]
    policy = RequestsPerMinute(limit=2, clock=lambda: now[0])
    for number in range(6):
        policy.add(number, ClientRef("ab"[number % 2]))
    begun = []
    while (number := policy.next()) is not None:
        policy.admit(number)
        begun.append(number)
    assert begun == [0, 1, 2, 3]
    now[0] = 61.0
    policy.refresh()
    assert policy.next() == 4


def test_within_a_client_prefixes_are_swept_in_circles():
    policy = create_policy("dlpm")
    for number, key in enumerate([b"b1", b"a1", b"b2", b"a2"]):
        policy.add(number, ClientRef("a"), key)
    taken = []
    while (number := policy.next()) is not None:
        policy.admit(number)
        taken.append(number)
        if number == 1:
            policy.add(9, ClientRef("a"), b"a0")  # behind the sweep: its turn comes with the next circle
    assert taken == [1, 3, 0, 2, 9]


def test_every_client_has_some_requests_ready():
    policy = create_policy("vtc")
    backlog = Backlog(policy)
    call = Call("c")
    backlog.add(Request(i, call, (), client=ClientRef("heavy")) for i in range(100))
    backlog.add(Request(100 + i, call, (), client=ClientRef("light")) for i in range(3))
    assert [r.request_id for r in backlog.take(4, 8)] == [*range(8), 100, 101, 102]
    for number in range(8):
        policy.add(number, ClientRef("heavy"))
    assert backlog.take(4, 8) == []
    backlog.remove(8)
    for _ in range(5):
        policy.admit(policy.next())
    assert [r.request_id for r in backlog.take(4, 8)] == [9, 10, 11, 12, 13]
    assert len(backlog) == 86


def test_over_several_hosts_prefixes_stay_at_home_and_clients_get_equal_shares():
    hosts, bound = ["h1", "h2", "h3"], 2 * (2 * 40_000 + 2000)
    router, turns = HostDeficits(hosts, 20_000), itertools.cycle(hosts)
    ways = {
        "by prefix": lambda one, cached: router.choose(one.client.name, cached, one.prompt - max(cached.values())),
        "in turn": lambda one, cached: next(turns),
        "one host": lambda one, cached: "h1",
    }
    hits = {}
    for name, choose in ways.items():
        simulators = {host: Simulator(create_policy("dlpm")) for host in hosts}
        run_hosts(prefix_load(), simulators, choose)
        outcomes = [simulator.outcome for simulator in simulators.values()]
        hits[name] = sum(o.cached_tokens for o in outcomes) / sum(o.prompt_tokens for o in outcomes)
        assert all(simulator.gap.widest <= bound for simulator in simulators.values())
        assert name == "one host" or min(len(o.finished) for o in outcomes) > 350, "no host is idle"
    assert hits["by prefix"] >= 0.99 * hits["one host"]
    assert hits["by prefix"] > 1.1 * hits["in turn"]
