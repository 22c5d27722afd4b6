"""kill -9 of the native engine in the middle of its work: the undisturbed answers, and nothing left behind."""

from __future__ import annotations

import os
import signal

import pytest
from spark_llm.serving.core import Call, Constraint, ModelRef

from tests.serving.native_checkpoints import write_checkpoint
from tests.serving.worker_kit import alive, drain, requests, wait_until

pytestmark = pytest.mark.slow

ROWS = [f'"title": "The {i % 7} Lighthouse {i}"\n}}' for i in range(300)]
FREE = Call("free", "Say something.\n\n{\n", max_tokens=24)
WORDS = Call("words", "Is it good?\n\n{\n", max_tokens=48, constraint=Constraint("regex", "[a-z]{24}"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    directory = write_checkpoint(tmp_path_factory.mktemp("llama"))
    return ModelRef(str(directory), args={"dtype": "float32", "kv_tokens": 4096, "threads": 1, "max_running": 16})


def engines(worker) -> list[int]:
    return [model["pid"] for model in worker.client.stats()["models"] if "pid" in model]


@pytest.mark.parametrize("call", [FREE, WORDS], ids=lambda call: call.call_id)
def test_a_killed_engine_gives_the_undisturbed_answers(make_worker, model, call):
    calm, worker = make_worker(), make_worker()
    with calm.exchange(call, model=model) as exchange:
        exchange.submit(requests(call, ROWS, identities=True))
        undisturbed = {i: row.text for i, row in drain(exchange, len(ROWS)).items()}
    with worker.exchange(call, model=model) as exchange:
        exchange.submit(requests(call, ROWS, identities=True))
        rows = {row.request_id: row for row in exchange.poll(60)}
        assert 0 < len(rows) < len(ROWS)
        [killed] = engines(worker)
        os.kill(killed, signal.SIGKILL)
        rows |= drain(exchange, len(ROWS) - len(rows))
        assert engines(worker) != [killed]
    assert {i: row.text for i, row in rows.items()} == undisturbed
    assert not any(row.error for row in rows.values())
    pids = worker.pids()
    worker.client.shutdown()
    wait_until(lambda: not any(map(alive, [killed, *pids])))
    left = {file.name for file in worker.folder.iterdir()}
    assert left <= {"calls", "leases", worker.rendezvous.log.name}, "leases are the application's"
