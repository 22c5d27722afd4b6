"""Malformed input on every door of the worker: it is refused, and nobody else notices."""

import json
import random
import socket
import threading

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import flight
from spark_llm.serving.core import Call, EngineFailure, ModelRef
from spark_llm.serving.protocol import (
    UP,
    StreamHeader,
    batch_to_requests,
    check_requests,
    from_metadata,
    requests_to_batch,
)
from spark_llm.serving.worker.ensure import call_options, connect, ensure

from tests.serving.worker_kit import alive, drain, requests, wait_until

pytestmark = pytest.mark.slow  # a worker, or many, for every test

CALL = Call("c", "p")
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)


def valid_header(worker) -> dict:
    return json.loads(StreamHeader("app", "1", "default", worker.model(), CALL).to_json())


def parts(raw, path=()):
    """The paths of all parts of a JSON object."""
    for name, value in raw.items():
        yield (*path, name)
        if isinstance(value, dict):
            yield from parts(value, (*path, name))


@settings(max_examples=300)
@given(data=st.data())
def test_a_header_with_any_wrong_part_is_refused_or_harmless(data):
    raw = json.loads(StreamHeader("app", "1", "default", ModelRef(engine="stub"), CALL).to_json())
    path = data.draw(st.sampled_from(sorted(parts(raw))))
    place = raw
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = data.draw(ANY)
    try:
        header = StreamHeader.from_json(json.dumps(raw).encode())
    except EngineFailure:
        return
    assert isinstance(header.call.max_tokens, int)
    assert header.call.max_tokens >= 1
    assert all(isinstance(stop, str) for stop in header.call.stop)
    assert isinstance(header.domain, str)


@given(st.binary(max_size=300))
def test_random_bytes_are_no_header(text):
    with pytest.raises(EngineFailure):
        StreamHeader.from_json(text)


def bad_batches():
    good = requests_to_batch(requests(CALL, ["a", "b"]))
    pieces = [[{"kind": "text", "payload": b"\xff"}], [{"kind": "text", "payload": b"b"}]]
    for name, segments in (
        ("not UTF-8", pieces),
        ("another kind", [[{"kind": "media", "payload": b"x"}], []]),
        ("no payload", [[{"kind": "text", "payload": None}], []]),
        ("no segments", [None, []]),
    ):
        columns = [
            pa.array(segments, UP.field("segments").type) if n == "segments" else good.column(n) for n in UP.names
        ]
        yield name, pa.RecordBatch.from_arrays(columns, schema=UP)
    null_ids = pa.array([None, 2], pa.int64())
    yield "no id", pa.RecordBatch.from_arrays([null_ids, *good.columns[1:]], schema=UP)


@pytest.mark.parametrize(
    ("name", "batch"), list(bad_batches()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_corrupt_batches_are_refused(name, batch):
    with pytest.raises(EngineFailure, match="corrupt"):
        check_requests(batch)


@settings(max_examples=300)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_batch_with_flipped_bytes_is_refused_or_readable(flips):
    """Offsets that lead outside of a buffer among them: whatever passes the check can be read to the last byte."""
    body = bytearray(requests_to_batch(requests(CALL, ["a", "bc", "é"], identities=True)).serialize())
    for place, byte in flips:
        body[int(place * (len(body) - 1))] = byte
    try:
        batch = pa.ipc.read_record_batch(pa.py_buffer(bytes(body)), UP)
        check_requests(batch)
    except (EngineFailure, pa.ArrowException, OSError):
        return
    assert len(batch_to_requests(batch, CALL, "app/1")) == batch.num_rows


def open_stream(client, endpoint, header: bytes):
    writer, reader = client.do_exchange(flight.FlightDescriptor.for_command(header), call_options(endpoint))
    return writer, reader


def test_malformed_streams_end_alone(worker):
    """Random headers, batches, metadata and actions while a healthy stream runs: front and replica live on."""
    rng = random.Random(7)
    texts = [str(i) for i in range(300)]
    with worker.exchange(delay_ms=10, batch=10, echo=True) as exchange:
        exchange.submit(requests(CALL, texts))
        first = exchange.poll(20)
        before = worker.pids()
        endpoint, header = ensure(worker.conf), json.dumps(valid_header(worker)).encode()
        batches = [batch for _, batch in bad_batches()]
        messages = [
            b"{",
            b"[]",
            b'{"report": 3}',
            b'{"report": {"calls": "x", "errors": 1}}',
            b'{"report": {"x": 1}}',
            b'{"report": {"calls": 1, "errors": [7]}}',
            b"\xff\xfe",
        ]
        with connect(endpoint) as client:
            for _ in range(20):
                _, reader = open_stream(client, endpoint, rng.randbytes(rng.randrange(200)))
                assert "failure" in from_metadata(reader.read_chunk().app_metadata)
            for batch in batches:
                writer, reader = open_stream(client, endpoint, header)
                writer.begin(UP)
                writer.write_batch(batch)
                assert "corrupt" in from_metadata(reader.read_chunk().app_metadata)["failure"]["message"]
            for message in messages:
                writer, reader = open_stream(client, endpoint, header)
                writer.begin(UP)
                writer.write_metadata(message)
                assert "malformed" in from_metadata(reader.read_chunk().app_metadata)["failure"]["message"]
            twice = requests_to_batch(requests(CALL, ["a"]) * 2)
            writer, reader = open_stream(client, endpoint, header)
            writer.begin(UP)
            writer.write_batch(twice)
            assert "two open requests" in from_metadata(reader.read_chunk().app_metadata)["failure"]["message"]
            with pytest.raises(pa.ArrowException):
                list(client.do_action(flight.Action("x" * 1000, b"\xff"), call_options(endpoint)))
        rows = {row.request_id: row for row in first} | drain(exchange, len(texts) - len(first))
        assert set(before) <= set(worker.pids())
    assert {i: row.text for i, row in rows.items()} == {i: "p" + text for i, text in enumerate(texts)}
    wait_until(lambda: sum(client["streams"] for client in worker.client.stats()["clients"]) == 0)


def test_half_open_and_garbage_sockets_do_not_stop_the_worker(worker):
    """Connections that say nothing, half a greeting or nonsense, and stay; streams that are left open in the middle."""
    endpoint = ensure(worker.conf)
    greeting = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    held = []
    for said in (
        b"",
        greeting[:7],
        greeting,
        greeting + b"\0" * 9,
        b"GET / HTTP/1.1\r\n\r\n",
        random.Random(1).randbytes(999),
    ):
        half = socket.socket(socket.AF_UNIX)
        half.connect(str(worker.rendezvous.socket))
        half.sendall(said)
        held.append(half)
    clients = [connect(endpoint) for _ in range(4)]
    streams = [open_stream(client, endpoint, json.dumps(valid_header(worker)).encode()) for client in clients]
    for writer, _ in streams:
        writer.begin(UP)
    with worker.exchange(echo=True) as exchange:
        exchange.submit(requests(CALL, ["a", "b"]))
        assert [row.text for row in drain(exchange, 2).values()] == ["pa", "pb"]
    for half in held:
        half.close()
    for (_, reader), client in zip(streams, clients, strict=True):
        reader.cancel()
        client.close()
    wait_until(lambda: sum(client["streams"] for client in worker.client.stats()["clients"]) == 0)


def test_a_slow_reader_holds_up_nobody_else(worker):
    """One client takes a pause after every answer; another one is served meanwhile."""
    model, done = worker.model(echo=True), threading.Event()

    def crawl():
        with worker.exchange(execution="1", model=model) as exchange:
            exchange.submit(requests(CALL, ["x" * 20_000] * 100))
            left = 100
            while left:
                left -= len(exchange.poll(1.0))
                done.wait(0.2)

    slow = threading.Thread(target=crawl)
    slow.start()
    with worker.exchange(execution="2", model=model) as exchange:
        exchange.submit(requests(CALL, [str(i) for i in range(1000)]))
        assert len(drain(exchange, 1000)) == 1000
    done.set()
    slow.join()


def test_nothing_is_left_behind_by_a_worker_that_ends(make_worker):
    worker = make_worker(idle_seconds=1.0)
    with worker.exchange() as exchange:
        exchange.submit(requests(CALL, ["a"]))
        drain(exchange, 1)
    pids = worker.pids()
    wait_until(lambda: not any(map(alive, pids)))
    left = {path.name for path in worker.folder.iterdir()}
    assert left <= {"calls", worker.rendezvous.log.name}, "only the log stays"
