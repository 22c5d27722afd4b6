"""The socket lost, the executor lost: rows are answered once, and nothing is computed for those who are gone."""

import json
import signal
import subprocess
import sys
from dataclasses import asdict

import pytest
from spark_llm.serving.core import Call

from tests.serving.worker_kit import alive, drain, requests, wait_until

pytestmark = pytest.mark.slow
CALL = Call("c", "p")
EXECUTOR = """
import json, sys, time
from spark_llm.serving.client import WorkerConf, connect
from spark_llm.serving.core import Call, ModelRef, Request
call = Call("c", "p")
model = ModelRef(engine="stub", args=json.loads(sys.argv[2]))
exchange = connect(WorkerConf(**json.loads(sys.argv[1]))).exchange(call, model, "app", "gone", "default")
exchange.submit([Request(i, call, (f"row {i}",)) for i in range(500)])
time.sleep(120)
"""


def test_rows_of_an_executor_that_is_killed_are_computed_no_more(worker):
    args = worker.model(delay_ms=100, batch=1).args
    executor = subprocess.Popen(
        [sys.executable, "-c", EXECUTOR, json.dumps(asdict(worker.conf)), json.dumps(dict(args))]
    )
    try:
        wait_until(lambda: len(worker.asked()) > 2, seconds=60)
    finally:
        executor.send_signal(signal.SIGKILL)
        executor.wait()
    wait_until(lambda: worker.in_flight() == 0)
    asked = len(worker.asked())
    assert asked < 500
    with worker.exchange(delay_ms=100, batch=1) as exchange:
        exchange.submit(requests(CALL, ["a", "b"]))
        drain(exchange, 2)
    assert len(worker.asked()) <= asked + 3, "two rows, and a step that may have been under way"
    gone = next(client for client in worker.client.stats()["clients"] if client["client"] == "app/gone")
    assert (gone["streams"], gone["queued"], gone["running"]) == (0, 0, 0)


def test_a_lost_socket_costs_no_row(worker):
    texts = [str(i) for i in range(200)]
    with worker.exchange(delay_ms=20, batch=10, echo=True) as one:
        one.submit(requests(CALL, texts))
        rows = {row.request_id: row for row in one.poll(20)}
        old = worker.pids()[0]
        worker.rendezvous.socket.unlink()
        with worker.exchange(execution="2", echo=True) as two:
            two.submit(requests(CALL, ["new"]))
            assert drain(two, 1)[0].text == "pnew"
            rows |= drain(one, len(texts) - len(rows))
        wait_until(lambda: not alive(old))
    assert {i: row.text for i, row in rows.items()} == {i: f"p{text}" for i, text in enumerate(texts)}
    assert not any(row.error for row in rows.values())
