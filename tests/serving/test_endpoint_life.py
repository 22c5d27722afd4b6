"""The endpoint engine behind the worker and behind SQL: its process killed, its key hidden."""

import os
import signal
from pathlib import Path

import pytest
from spark_llm.serving.core import Call, ModelRef

from tests.serving.endpoint_server import MODEL, Server, prompt_of
from tests.serving.worker_kit import drain, requests, wait_until

KEY = "sk-never-to-be-seen-9876543210"


@pytest.fixture
def server():
    server = Server()
    yield server
    server.stop()


@pytest.mark.slow
def test_rows_in_flight_are_asked_again_after_its_process_is_killed(worker, server):
    server.seconds = 0.05
    call = Call("c", "say ")
    model = ModelRef(MODEL, "endpoint", args={"url": server.url, "concurrency": 4})
    with worker.exchange(call, model=model) as exchange:
        exchange.submit(requests(call, [str(i) for i in range(60)]))
        wait_until(lambda: len(server.bodies) > 8)
        os.kill(worker.pids()[1], signal.SIGKILL)
        rows = drain(exchange, 60)
    assert {i: row.text for i, row in rows.items()} == {i: f"SAY {i}" for i in range(60)}
    assert len({prompt_of(body) for body in server.bodies}) == 60
    assert server.most_running <= 4 + 4, "slots came back; what ran at the kill may have ended later"


@pytest.mark.spark
def test_sql_over_an_endpoint_without_a_trace_of_the_key(spark, make_worker, server, tmp_path):
    server.key = KEY
    key_file = tmp_path / "key"
    key_file.write_text(KEY)
    key_file.chmod(0o600)
    worker = make_worker(idle_seconds=60.0)
    conf = {
        "engine": "endpoint",
        "placement": "worker",
        "model": MODEL,
        "engine.args": "{}",
        "endpoint.url": server.url,
        "endpoint.keyFile": str(key_file),
        "price.output": "1000000",
        "worker.dir": str(worker.folder),
    }
    for name, value in conf.items():
        spark.conf.set(f"spark.llm.{name}", value)
    query = (
        "SELECT id, llm('Shout', word) AS answer FROM VALUES (1, 'a'), (2, 'b'), (3, 'a') AS t(id, word) ORDER BY id"
    )
    rows = spark.sql(query).collect()
    assert [row.answer for row in rows] == [row.answer.upper() for row in rows]
    assert rows[0].answer == rows[2].answer != rows[1].answer
    assert len(server.bodies) == 2, "equal rows are asked once"
    stats = worker.client.stats()
    assert sum(client["cost"] for client in stats["clients"]) > 0

    shown = "\n".join(row[0] for row in spark.sql(f"EXPLAIN EXTENDED {query}").collect())
    shown += worker.rendezvous.log.read_text() + repr(stats)
    processes = [stats["pid"], *(model["pid"] for model in stats["models"])]
    shown += "".join(Path(f"/proc/{pid}/cmdline").read_text() for pid in processes if Path("/proc").exists())
    server.key = "another"
    with pytest.raises(Exception, match="LLM_ENDPOINT_KEY") as refused:
        spark.sql(query.replace("Shout", "Whisper")).collect()
    assert KEY not in shown + str(refused.value) + worker.rendezvous.log.read_text()
