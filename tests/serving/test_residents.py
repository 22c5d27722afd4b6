"""Several models within a budget of memory: the least recently used make room, busy ones never."""

import json
import os
import socket
import threading
import urllib.request
from io import StringIO

import pytest
from spark_llm.serving.core import Call, EngineFailure, ModelRef
from spark_llm.serving.footprint import footprint, host_memory, resident_bytes
from spark_llm.serving.price import Price
from spark_llm.serving.worker.metrics import prometheus_text
from spark_llm.serving.worker.residents import Model, Residents

from spark_llm.top import run_top, table
from tests.serving.worker_kit import alive, drain, failure_of, requests, wait_until

pytestmark = pytest.mark.slow  # a worker, or many, for every test

CALL = Call("c", "p")
MIB = 1 << 20


class Replica:
    """A dispatch without a process."""

    def __init__(self, log, name):
        self.log, self.name, self.pid, self.streams = log, name, None, 0

    def close(self):
        self.log.append(self.name)
        self.pid = None


class Case:
    """Residents with a budget, models of given sizes, and the order in which models left."""

    def __init__(self, monkeypatch, mib, most=0):
        monkeypatch.setattr("spark_llm.serving.worker.residents.resident_bytes", lambda _: 0)
        self.lock = threading.Condition(threading.RLock())
        self.residents = Residents(self.lock, mib * MIB, most)
        self.left = []
        self.time = 0

    def model(self, name, mib, replicas=1, engine="native"):
        made = [Replica(self.left, name) for _ in range(replicas)]
        return Model(ModelRef(name, engine), made, mib * MIB)

    def open(self, model, seconds=0.0):
        with self.lock:
            resident = self.residents.admit(model, seconds, lambda: False)
            self.time += 1
            resident.last_used = self.time
            for number, dispatch in enumerate(resident.dispatches):
                dispatch.pid = 1000 + self.time + number
            resident.dispatches[0].streams += 1
        return resident

    def close(self, model):
        with self.lock:
            model.dispatches[0].streams -= 1
            self.residents.used_last(model)

    @property
    def loaded(self):
        return {model.ref.name for model in self.residents.models.values() if model.pids}


def test_the_least_recently_used_idle_model_makes_room(monkeypatch):
    case = Case(monkeypatch, 100)
    for name in "abc":
        case.close(case.open(case.model(name, 30)))
    case.close(case.open(case.model("a", 30)))
    case.open(case.model("d", 30))
    assert case.left == ["b"]
    assert case.loaded == {"a", "c", "d"}


def test_a_busy_model_never_leaves(monkeypatch):
    case = Case(monkeypatch, 100)
    busy = case.open(case.model("busy", 60))
    failure = failure_of(lambda: case.open(case.model("other", 60)))
    assert failure.condition == "LLM_WORKER_MEMORY"
    assert "60 MiB" in failure.message
    assert "100 MiB" in failure.message
    assert case.left == []
    case.close(busy)
    case.open(case.model("other", 60))
    assert case.left == ["busy"]


def test_admission_waits_until_a_model_is_idle(monkeypatch):
    case = Case(monkeypatch, 100)
    busy = case.open(case.model("busy", 60))
    opened = []
    waiting = threading.Thread(target=lambda: opened.append(case.open(case.model("other", 60), seconds=60)))
    waiting.start()
    wait_until(lambda: "other" in {model.ref.name for model in case.residents.models.values()})
    assert opened == []
    case.close(busy)
    waiting.join(10)
    assert [model.ref.name for model in opened] == ["other"]
    assert case.loaded == {"other"}


def test_a_model_that_can_never_fit_is_refused_at_once(monkeypatch):
    case = Case(monkeypatch, 100)
    case.close(case.open(case.model("small", 10)))
    failure = failure_of(lambda: case.open(case.model("two halves", 51, replicas=2), seconds=1e9))
    assert "whole budget" in failure.message
    assert case.left == [], "nothing is evicted for it"


def test_a_client_that_goes_away_does_not_wait(monkeypatch):
    case = Case(monkeypatch, 100)
    case.open(case.model("busy", 60))
    with case.lock, pytest.raises(EngineFailure):
        case.residents.admit(case.model("other", 60), 1e9, lambda: True)


def test_more_streams_of_a_loaded_model_need_no_room(monkeypatch):
    case = Case(monkeypatch, 100)
    first = case.open(case.model("a", 90))
    assert case.open(case.model("a", 90)) is first


def test_a_worker_over_its_limit_admits_nobody(monkeypatch):
    case = Case(monkeypatch, 100)
    grown = case.open(case.model("grown", 50))
    monkeypatch.setattr("spark_llm.serving.worker.residents.resident_bytes", lambda pid: 80 * MIB)
    assert failure_of(lambda: case.open(case.model("grown", 50))).condition == "LLM_WORKER_MEMORY"
    case.close(grown)
    monkeypatch.setattr(
        "spark_llm.serving.worker.residents.resident_bytes", lambda pid: 80 * MIB if pid != os.getpid() else 30 * MIB
    )
    fresh = case.open(case.model("grown", 50))
    assert case.left == ["grown"], "once idle it starts afresh"
    assert fresh is not grown


def test_models_elsewhere_do_not_count_towards_the_most(monkeypatch):
    case = Case(monkeypatch, 1000, most=1)
    case.close(case.open(case.model("a", 10)))
    case.open(case.model("far", 10, engine="endpoint"))
    assert case.loaded == {"a", "far"}
    case.open(case.model("b", 10))
    assert case.loaded == {"b", "far"}


def test_footprints_follow_the_files():
    small, large = (ModelRef("default", args={"kv_tokens": tokens}) for tokens in (1000, 50_000))
    assert footprint(large) > footprint(small) > 0
    assert footprint(ModelRef("default", args={"kv_tokens": 1000, "dtype": "float32"})) > footprint(small)
    assert footprint(small, on_gpu=True) < footprint(small)
    assert footprint(ModelRef("/no/such/model")) > 0
    assert 0 < resident_bytes(os.getpid()) < host_memory()
    assert resident_bytes(2**22 + 1) == 0


def test_prices():
    assert Price.of({"price_prompt": 2, "price_output": "x"}) == Price(2.0, 0.0, 0.0)


@pytest.mark.slow
def test_models_take_turns_in_a_real_worker(make_worker):
    worker = make_worker(memory_bytes=512 * MIB, start_seconds=60.0)
    sizes = {"memory_bytes": 150 * MIB}

    def ask(name):
        model = ModelRef(name, "stub", args=sizes)
        with worker.exchange(model=model) as exchange:
            exchange.submit(requests(CALL, ["a"]))
            assert drain(exchange, 1)[0].error is None
            return next(m["pid"] for m in worker.client.stats()["models"] if m["model"] == name)

    first = ask("a")
    assert ask("a") == first
    ask("b")
    wait_until(lambda: not alive(first))
    memory = worker.client.stats()["memory"]
    assert memory["evictions"] == 1
    assert memory["used"] <= memory["limit"] == 512 * MIB
    failure = failure_of(lambda: _ask_too_much(worker))
    assert failure.condition == "LLM_WORKER_MEMORY"
    ask("b")


def _ask_too_much(worker):
    with worker.exchange(model=ModelRef("huge", "stub", args={"memory_bytes": 1 << 30})) as exchange:
        exchange.submit(requests(CALL, ["a"]))
        drain(exchange, 1)


def test_every_client_is_counted_apart(worker):
    with (
        worker.exchange(execution="1", delay_ms=150, batch=2) as one,
        worker.exchange(execution="2", delay_ms=150, batch=2, pool="night") as two,
    ):
        one.submit(requests(CALL, ["x"] * 30))
        two.submit(requests(CALL, ["y"] * 4))
        clients = {}

        def both_are_seen():
            clients.update((c["client"], c) for c in worker.client.stats()["clients"])
            return len(clients) == 2 and clients["app/1"]["running"] > 0

        wait_until(both_are_seen)
        heavy, light = clients["app/1"], clients["app/2"]
        assert heavy["queued"] + heavy["running"] + heavy["rows"] == 30
        assert light["queued"] + light["running"] + light["rows"] == 4
        assert light["pool"] == "night"
        assert heavy["oldest_wait"] > 0
        drain(one, 30)
        drain(two, 4)
        done = {c["client"]: c for c in worker.client.stats()["clients"]}
        assert (done["app/1"]["rows"], done["app/1"]["queued"], done["app/1"]["running"]) == (30, 0, 0)
        assert 0 < done["app/1"]["mean_wait"] <= done["app/1"]["longest_wait"]
        assert done["app/1"]["prompt"] + done["app/1"]["output"] > 0

        shown = StringIO()
        assert run_top(str(worker.folder), once=True, as_json=False, interval=1, out=shown) == 0
        lines = shown.getvalue().splitlines()
        assert any(line.startswith("QUERY") and "QUEUED" in line for line in lines)
        assert sum(line.startswith("app/") for line in lines) == 2
        printed = StringIO()
        run_top(str(worker.folder), once=True, as_json=True, interval=1, out=printed)
        assert {c["client"]: c["rows"] for c in json.loads(printed.getvalue())["clients"]} == {"app/1": 30, "app/2": 4}


def test_top_without_a_worker(tmp_path):
    tmp_path.chmod(0o700)
    out = StringIO()
    assert run_top(str(tmp_path), once=True, as_json=False, interval=1, out=out) == 1
    assert "no engine worker" in out.getvalue()
    assert list(tmp_path.iterdir()) == []


def test_top_shows_rates_between_two_states():
    client = dict.fromkeys(("streams", "queued", "running", "rows", "calls", "errors", "cached", "last_seen"), 0)
    client |= {"client": "app/1", "pool": "p", "streams": 1, "mean_wait": 0.0, "oldest_wait": 0.0, "cost": 0.5}
    worker = {"pid": 1, "memory": {"used": 0, "limit": 1}, "models": []}
    earlier = {**worker, "read": -1e9, "clients": [{**client, "prompt": 0, "output": 0}]}
    lines = table({**worker, "clients": [{**client, "prompt": 900, "output": 100}]}, earlier).splitlines()
    assert "TOKENS/S" in lines[2]
    assert "0.5000" in lines[3]
    assert "1,000" in lines[3]


def test_metrics_are_prometheus_text(make_worker):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    worker = make_worker(metrics_port=port)
    with worker.exchange(pool='od"d') as exchange:
        exchange.submit(requests(CALL, ["a", "b"]))
        drain(exchange, 2)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
        lines = response.read().decode().splitlines()
    assert 'spark_llm_client_rows_total{client="app/1",pool="od\\"d"} 2' in lines
    samples = [line for line in lines if not line.startswith("#")]
    assert all(
        line.rsplit(" ", 1)[0].startswith("spark_llm_") and float(line.rsplit(" ", 1)[1]) >= 0 for line in samples
    )
    assert len({line.split("{")[0] for line in samples}) == sum(line.startswith("# TYPE") for line in lines)
    assert prometheus_text({"memory": {}, "models": [], "clients": []}) == "\n"
