"""Crashes of replica and front: every row has one answer, poison rows fail alone, fatal causes end the query."""

import os
import signal
import time

import pytest
from spark_llm.serving import connection
from spark_llm.serving.core import Call, ModelRef
from spark_llm.serving.worker import ensure

from tests.serving.worker_kit import alive, drain, failure_of, requests, wait_until

pytestmark = pytest.mark.slow

CALL = Call("c", "p")


def replica_pids(worker):
    return [model["pid"] for model in worker.client.stats()["models"] if "pid" in model]


def test_rows_in_flight_are_asked_again_after_the_replica_is_killed(worker):
    texts = [str(i) for i in range(400)]
    with worker.exchange(delay_ms=20, batch=20, echo=True) as exchange:
        exchange.submit(requests(CALL, texts, identities=True))
        first = exchange.poll(10)
        os.kill(replica_pids(worker)[0], signal.SIGKILL)
        rows = {row.request_id: row for row in first} | drain(exchange, len(texts) - len(first))
    assert {i: row.text for i, row in rows.items()} == {i: "p" + text for i, text in enumerate(texts)}
    assert not any(row.error for row in rows.values())


def test_a_row_that_ends_the_process_fails_alone(worker):
    texts = ["fine"] * 300
    texts[123] = "POISON"
    with worker.exchange(crash_marker="POISON", crash_times=99) as exchange:
        exchange.submit(requests(CALL, texts))
        rows = drain(exchange, len(texts))
        assert exchange.totals.errors == 1
        exchange.submit(requests(CALL, ["fine"], first=1000))
        assert drain(exchange, 1)[1000].error is None
    assert [i for i, row in rows.items() if row.error] == [123]
    assert rows[123].error.condition == "LLM_WORKER_LOST"
    assert rows[123].error.attempts >= 3


def test_requests_that_arrive_while_suspects_are_tried_are_answered(worker):
    with (
        worker.exchange(execution="1", crash_marker="POISON", crash_times=99, delay_ms=50) as one,
        worker.exchange(execution="2", crash_marker="POISON", crash_times=99, delay_ms=50) as two,
    ):
        one.submit(requests(CALL, ["POISON", *["fine"] * 50]))
        wait_until(lambda: (worker.calls_dir / "crashes").exists())
        two.submit(requests(CALL, ["fine"] * 50))
        assert not any(row.error for row in drain(two, 50).values())
        assert [i for i, row in drain(one, 51).items() if row.error] == [0]


def test_a_model_that_always_crashes_fails_the_stream(worker):
    def ask():
        with worker.exchange(crash_marker="p", crash_times=99) as exchange:
            exchange.submit(requests(CALL, ["x"] * 40))
            drain(exchange, 40)

    failure = failure_of(ask)
    assert failure.condition == "LLM_WORKER_LOST"
    assert str(worker.rendezvous.log) in failure.remedy


def test_a_process_that_ends_while_loading_fails_the_stream(worker):
    def ask():
        with worker.exchange(model=ModelRef(engine="stub", python="/bin/false")) as exchange:
            exchange.submit(requests(CALL, ["x"]))
            drain(exchange, 1)

    assert failure_of(ask).condition == "LLM_ENGINE_START"


def test_rows_in_flight_are_asked_again_after_the_front_is_killed(worker):
    texts = [str(i) for i in range(400)]
    with worker.exchange(delay_ms=20, batch=20, echo=True) as exchange:
        exchange.submit(requests(CALL, texts))
        first = exchange.poll(10)
        front, replica = worker.pids()
        os.kill(front, signal.SIGKILL)
        rows = {row.request_id: row for row in first} | drain(exchange, len(texts) - len(first))
        wait_until(lambda: not alive(replica))
        assert worker.pids()[0] != front
    assert {i: row.text for i, row in rows.items()} == {i: "p" + text for i, text in enumerate(texts)}


def test_a_front_lost_between_exchanges_is_replaced(worker):
    for _ in range(2):
        with worker.exchange() as exchange:
            exchange.submit(requests(CALL, ["a"]))
            drain(exchange, 1)
            front = worker.pids()[0]
        os.kill(front, signal.SIGKILL)
    assert len(worker.asked()) == 2


def test_a_front_that_cannot_come_back_fails_the_exchange(worker):
    def ask():
        with worker.exchange(delay_ms=200, batch=1) as exchange:
            exchange.submit(requests(CALL, ["a"] * 20))
            front = worker.pids()[0]
            worker.folder.chmod(0o755)
            os.kill(front, signal.SIGKILL)
            drain(exchange, 20)

    failure = failure_of(ask)
    worker.folder.chmod(0o700)
    assert failure.condition == "LLM_WORKER_START"
    assert "mode 700" in failure.message


@pytest.mark.parametrize("last_signal", [signal.SIGTERM, signal.SIGKILL])
def test_replicas_end_with_their_front(worker, last_signal):
    with worker.exchange() as exchange:
        exchange.submit(requests(CALL, ["a"]))
        drain(exchange, 1)
    front, replica = worker.pids()
    os.kill(front, last_signal)
    wait_until(lambda: not alive(front) and not alive(replica))


def test_neighbours_that_all_end_the_process_fail_alone_once_the_model_has_answered(worker):
    texts = [f"fine {i}" for i in range(300)]
    texts[120:132] = [f"POISON {i}" for i in range(12)]
    with worker.exchange(crash_marker="POISON", crash_times=999, batch=64) as exchange:
        exchange.submit(requests(CALL, texts))
        rows = drain(exchange, len(texts))
    assert [i for i, row in rows.items() if row.error] == list(range(120, 132))


def test_a_replica_that_hangs_is_started_again_and_asked_again(make_worker):
    worker = make_worker(hang_seconds=1.0)
    texts = [str(i) for i in range(200)]
    with worker.exchange(delay_ms=20, batch=10, echo=True) as exchange:
        exchange.submit(requests(CALL, texts))
        first = exchange.poll(10)
        hung = replica_pids(worker)[0]
        os.kill(hung, signal.SIGSTOP)
        rows = {row.request_id: row for row in first} | drain(exchange, len(texts) - len(first))
        assert not alive(hung)
    assert {i: row.text for i, row in rows.items()} == {i: "p" + text for i, text in enumerate(texts)}


def test_a_replica_without_work_may_be_silent(make_worker):
    worker = make_worker(hang_seconds=0.5)
    with worker.exchange() as exchange:
        exchange.submit(requests(CALL, ["a"]))
        drain(exchange, 1)
        before, until = replica_pids(worker), time.monotonic() + 2
        wait_until(lambda: time.monotonic() > until)
        assert replica_pids(worker) == before


def test_a_front_that_hangs_is_replaced_and_its_rows_are_asked_again(worker, monkeypatch):
    monkeypatch.setattr(connection, "SILENCE_SECONDS", 0.5)
    monkeypatch.setattr(ensure, "PING_SECONDS", 3.0)
    texts = [str(i) for i in range(200)]
    with worker.exchange(delay_ms=20, batch=10, echo=True) as exchange:
        exchange.submit(requests(CALL, texts))
        first = exchange.poll(10)
        front, replica = worker.pids()
        os.kill(front, signal.SIGSTOP)
        rows = {row.request_id: row for row in first} | drain(exchange, len(texts) - len(first))
        wait_until(lambda: not alive(front) and not alive(replica))
    assert {i: row.text for i, row in rows.items()} == {i: "p" + text for i, text in enumerate(texts)}


@pytest.mark.parametrize(("times", "answered"), [(2, True), (3, False)])
def test_only_transient_failures_are_asked_again(worker, times, answered):
    args = {"flaky_marker": "FLAKY", "flaky_times": times, "fail_marker": "BAD"}
    with worker.exchange(**args) as exchange:
        exchange.submit(requests(CALL, ["FLAKY", "BAD", "fine"]))
        rows = drain(exchange, 3)
        assert exchange.totals.calls == 3
    assert len(worker.asked()) == 3 + min(times, 2)
    assert rows[1].error.attempts == 1
    assert (rows[0].error is None) is answered
    if not answered:
        assert (rows[0].error.condition, rows[0].error.attempts) == ("LLM_ROW_INTERRUPTED", 3)


def test_a_replica_that_is_killed_while_it_comes_back_is_started_once_more(worker):
    texts = [str(i) for i in range(200)]
    with worker.exchange(delay_ms=20, batch=10, echo=True) as exchange:
        exchange.submit(requests(CALL, texts))
        first = exchange.poll(10)
        killed = replica_pids(worker)
        os.kill(killed[-1], signal.SIGKILL)
        for _ in range(2):
            wait_until(lambda: set(replica_pids(worker)) - set(killed))  # noqa: B023 - called at once
            killed += replica_pids(worker)
            os.kill(killed[-1], signal.SIGKILL)
        rows = {row.request_id: row for row in first} | drain(exchange, len(texts) - len(first))
    assert {i: row.text for i, row in rows.items()} == {i: "p" + text for i, text in enumerate(texts)}


def test_a_replica_that_hangs_while_its_front_is_killed_is_ended_by_the_next_front(worker):
    texts = [str(i) for i in range(100)]
    with worker.exchange(delay_ms=20, batch=10, echo=True) as exchange:
        exchange.submit(requests(CALL, texts))
        first = exchange.poll(10)
        front, replica = worker.pids()
        os.kill(replica, signal.SIGSTOP)
        os.kill(front, signal.SIGKILL)
        rows = {row.request_id: row for row in first} | drain(exchange, len(texts) - len(first))
        wait_until(lambda: not alive(replica))
    assert len(rows) == 100
