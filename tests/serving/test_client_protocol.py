"""What travels between client, front and replica survives the way there and back."""

import socket
import subprocess
import sys
import threading
import time

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from spark_llm.serving.core import Call, Constraint, EngineFailure, Finished, ModelRef, Request, RowError, Usage
from spark_llm.serving.protocol import (
    StreamHeader,
    batch_to_finished,
    batch_to_requests,
    check_requests,
    finished_to_batch,
    requests_to_batch,
)
from spark_llm.serving.worker.clients import KEPT_CLIENTS, QUERY_END_SECONDS, Clients
from spark_llm.serving.worker.frames import Channel
from spark_llm.serving.worker.memo import ENTRY_BYTES, AnswerMemo
from spark_llm.serving.worker.package import link_package

CALL = Call("c", "p", stop=("a",), constraint=Constraint("choices", ["x", "y"]))
int64 = st.integers(-(2**63), 2**63 - 1)
text = st.text(st.characters(exclude_categories=["Cs"]))
requests = st.builds(
    Request,
    int64,
    st.just(CALL),
    st.lists(text, max_size=4).map(tuple),
    st.none() | st.binary(min_size=32, max_size=32),
    int64,
    st.none() | int64,
    st.just("app/1"),
)
finished = st.builds(
    Finished,
    int64,
    st.none() | text,
    st.sampled_from(["stop", "length", "error", "cancelled"]),
    st.builds(Usage, *[st.integers(0, 2**40)] * 3),
    st.none() | st.builds(RowError, text, text, st.integers(0, 9)),
    st.booleans(),
)


@given(st.lists(requests))
def test_requests_survive_the_wire(rows):
    assert batch_to_requests(requests_to_batch(rows), CALL, "app/1") == rows


@given(st.lists(requests, min_size=1), st.data())
def test_any_rows_of_a_batch_can_be_taken(rows, data):
    picked = data.draw(st.lists(st.integers(0, len(rows) - 1)))
    taken = requests_to_batch(rows).take(pa.array(picked, pa.int64()))
    assert batch_to_requests(taken, CALL, "app/1") == [rows[i] for i in picked]


@given(st.lists(finished))
def test_answers_survive_the_wire(rows):
    assert batch_to_finished(finished_to_batch(rows)) == rows


def test_headers_survive_the_wire():
    header = StreamHeader("app", "7", "etl", ModelRef("m", "vllm", "/py", {"dtype": "bfloat16"}), CALL)
    assert StreamHeader.from_json(header.to_json()) == header
    assert header.client == "app/7"


def test_another_schema_is_refused():
    with pytest.raises(EngineFailure, match="schema of protocol"):
        check_requests(pa.record_batch([[1]], names=["x"]))


def test_frames_carry_heads_and_bodies_of_any_size_until_the_end():
    ours, theirs = (Channel(end) for end in socket.socketpair())
    batch = pa.record_batch([["x" * 1_000_000]], names=["x"])

    def send():
        ours.send({"op": "a"})
        ours.send({"op": "b"}, batch)
        ours.close()

    threading.Thread(target=send).start()
    assert theirs.receive()[0] == {"op": "a"}
    head, body = theirs.receive()
    assert head == {"op": "b"}
    assert pa.ipc.read_record_batch(body, batch.schema) == batch
    assert theirs.receive() is None
    theirs.close()
    assert theirs.receive() is None


def test_the_memo_forgets_the_least_recently_used_beyond_its_bytes():
    memo = AnswerMemo(3 * (ENTRY_BYTES + 10))
    for key in "abc":
        memo.put(key, ("x" * 10, "stop"))
    memo.get("a")
    memo.put("d", ("é" * 5, "stop"))
    assert [key for key in "abcd" if memo.get(key)] == ["a", "c", "d"]
    assert memo.bytes == 3 * (ENTRY_BYTES + 10)
    memo.put("a", ("", "stop"))
    assert memo.bytes == 3 * ENTRY_BYTES + 20
    memo.put("big", ("x" * 10_000, "stop"))
    assert (len(memo), memo.bytes) == (0, 0)


def test_answers_are_forgotten_only_after_a_query_has_ended():
    clients = Clients(10_000, 10_000)
    client = clients.open("app/1", "default")
    client.memo.put("key", ("answer", "stop"))
    later = client.last_seen + 2 * QUERY_END_SECONDS
    clients.expire(later)
    assert len(client.memo) == 1, "a stream is open"
    clients.close(client)
    clients.expire(client.last_seen + QUERY_END_SECONDS / 2)
    assert len(client.memo) == 1, "the next stage may be about to start"
    clients.expire(later)
    assert len(client.memo) == 0
    assert clients.open("app/1", "default") is client


def test_old_clients_are_forgotten_once_there_are_many():
    clients = Clients(0, 0)
    for number in range(KEPT_CLIENTS + 5):
        clients.close(clients.open(f"app/{number}", "default"))
    clients.expire(time.time() + 2 * QUERY_END_SECONDS)
    assert [stats["client"] for stats in clients.stats()] == [f"app/{n}" for n in range(5, KEPT_CLIENTS + 5)]


def test_another_python_imports_this_package(tmp_path):
    path = link_package(tmp_path / "python")
    script = "import spark_llm.serving.engines as e; print(e.__file__)"
    command = [sys.executable, "-S", "-c", script]
    run = subprocess.run(
        command, env={"PYTHONPATH": str(path)}, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert run.stdout.startswith(str(path))


def test_client_and_front_are_free_of_torch_and_of_flight_objects():
    script = (
        "import sys, spark_llm.serving.client, spark_llm.serving.local, spark_llm.serving.worker.front;"
        "print([m for m in ('torch', 'pyspark', 'transformers') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_answers_of_all_clients_are_bounded_together():
    clients = Clients(memo_bytes=10_000, memo_total_bytes=2 * (ENTRY_BYTES + 10))
    opened = [clients.open(f"app/{number}", "default") for number in range(3)]
    for client in opened:
        client.memo.put("key", ("x" * 10, "stop"))
    clients.close(opened[1])
    clients.expire(time.time())
    assert [len(client.memo) for client in opened] == [1, 0, 1], "a client without a stream is forgotten first"


def test_a_query_that_comes_back_after_its_end_starts_anew():
    clients = Clients(0, 0)
    client = clients.open("app/", "default")
    client.asked, client.started = 7, 0.0
    clients.close(client)
    assert clients.open("app/", "default").asked == 7
    clients.close(client)
    client.last_seen -= 2 * QUERY_END_SECONDS
    assert clients.open("app/", "default").asked == 0
    assert client.started > 0
