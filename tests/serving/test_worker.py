"""The worker over a real socket: answers by id, merging, memo, back-pressure, totals, bad input."""

import contextlib
import json
import multiprocessing
import threading
import time
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import flight
from spark_llm.serving.core import Call, Constraint, ModelRef, RowError, Terms, Usage
from spark_llm.serving.protocol import END, PROTOCOL, UP, StreamHeader, from_metadata, requests_to_batch
from spark_llm.serving.worker.ensure import call_options, connect, ensure
from spark_llm.serving.worker.rendezvous import Endpoint

from tests.serving.worker_kit import drain, failure_of, requests, wait_until

pytestmark = pytest.mark.slow  # a worker, or many, for every test

CALL = Call("c", "p")
TOO_LARGE = ModelRef("huge", "stub", args={"memory_bytes": 1 << 50})


def test_thousands_of_rows_come_back_by_id(worker):
    texts = [f"row {i} é 漢 {'x' * (i % 50)}" for i in range(5000)]
    with worker.exchange(echo=True) as exchange:
        exchange.submit(requests(CALL, texts))
        rows = drain(exchange, len(texts))
        assert exchange.totals.calls == len(texts)
    assert {i: row.text for i, row in rows.items()} == {i: "p" + text for i, text in enumerate(texts)}
    assert len(worker.asked()) == len(texts)


def _ask_from_a_process(conf, model, number, results):
    from spark_llm.serving.client import connect as connect_worker

    texts = [f"{number} {i}" for i in range(500)]
    with connect_worker(conf).exchange(CALL, model, "app", str(number), "default") as exchange:
        exchange.submit(requests(CALL, texts))
        rows = drain(exchange, len(texts))
    results.put(all(rows[i].text == "p" + text for i, text in enumerate(texts)))


def test_many_processes_start_and_share_one_worker(worker):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    model = worker.model(echo=True)
    tasks = [context.Process(target=_ask_from_a_process, args=(worker.conf, model, n, results)) for n in range(4)]
    for task in tasks:
        task.start()
    assert [results.get(timeout=60) for _ in tasks] == [True] * 4
    for task in tasks:
        task.join()
    stats = worker.client.stats()
    assert [model["state"] for model in stats["models"]] == ["ready"]
    assert sorted(client["rows"] for client in stats["clients"]) == [500] * 4
    assert len(list(worker.folder.glob("worker-*.json"))) == 1


def test_each_gpu_has_a_replica_and_streams_spread_over_them(make_worker):
    worker = make_worker(gpus="3,5")
    with worker.exchange(execution="1") as one, worker.exchange(execution="2") as two:
        for exchange in (one, two):
            exchange.submit(requests(CALL, ["a", "b"]))
            drain(exchange, 2)
        replicas = worker.client.stats()["models"]
    environments = [Path(f"/proc/{replica['pid']}/environ").read_bytes().split(b"\0") for replica in replicas]
    seen = [entry for environment in environments for entry in environment if entry.startswith(b"CUDA_VIS")]
    assert seen == [b"CUDA_VISIBLE_DEVICES=3", b"CUDA_VISIBLE_DEVICES=5"]
    assert sorted(len(file.read_text().splitlines()) for file in worker.calls_dir.glob("*.calls")) == [2, 2]


def test_many_concurrent_exchanges_of_one_process(worker):
    def task(number):
        with worker.exchange(execution=str(number), echo=True) as exchange:
            texts = [f"{number} {i}" for i in range(200)]
            exchange.submit(requests(CALL, texts))
            rows = drain(exchange, 200)
            right.append(all(rows[i].text == "p" + text for i, text in enumerate(texts)))

    right = []
    threads = [threading.Thread(target=task, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 8


def test_equal_requests_in_flight_are_asked_once_and_the_first_pays(worker):
    with worker.exchange(execution="1", delay_ms=300) as one, worker.exchange(execution="2", delay_ms=300) as two:
        one.submit(requests(CALL, ["a", "b"], identities=True))
        wait_until(lambda: worker.in_flight() == 2)
        two.submit(requests(CALL, ["b", "c"], first=10, identities=True))
        first, second = drain(one, 2), drain(two, 2)
    assert first[1].text == second[10].text
    assert (first[1].shared, second[10].shared, second[11].shared) == (False, True, False)
    assert second[10].usage == Usage()
    assert first[1].usage.prompt > 0
    assert len(worker.asked()) == 3


@pytest.mark.parametrize(
    "other",
    [
        {"pool": "other"},
        {"call": Call("c", "p", max_tokens=3)},
        {"call": Call("c", "p", constraint=Constraint("choices", ["x"]))},
        {"batch": 7},
    ],
    ids=["pool", "options", "constraint", "model"],
)
def test_nothing_is_shared_across_pools_options_or_models(worker, other):
    with worker.exchange() as one, worker.exchange(**other) as two:
        for exchange in (one, two):
            exchange.submit(requests(other.get("call", CALL), ["a"], identities=True))
            assert not drain(exchange, 1)[0].shared
    assert len(worker.asked()) == 2


def test_answers_are_remembered_per_client_and_errors_are_not(worker):
    texts = ["good", "BAD"]
    shared = []
    for execution in ("1", "1", "2"):
        with worker.exchange(execution=execution, fail_marker="BAD") as exchange:
            exchange.submit(requests(CALL, texts, identities=True))
            rows = drain(exchange, 2)
            shared.append((rows[0].shared, rows[1].shared))
            assert rows[1].error.condition == "LLM_ROW_FAILED"
            assert exchange.totals.errors == len([e for e in shared if execution == "1"]) or execution == "2"
    assert shared == [(False, False), (True, False), (False, False)]
    assert len(worker.asked()) == 5


def test_the_call_id_does_not_separate_equal_questions(worker):
    for call in (Call("c1", "p"), Call("c2", "p")):
        with worker.exchange(call) as exchange:
            exchange.submit(requests(call, ["a"], identities=True))
            drain(exchange, 1)
    assert len(worker.asked()) == 1


def test_a_question_outlives_the_stream_that_asked_it_first(worker):
    with worker.exchange(execution="2", delay_ms=300) as two:
        with worker.exchange(execution="1", delay_ms=300) as one:
            one.submit(requests(CALL, ["a"], identities=True))
            wait_until(lambda: worker.in_flight() == 1)
            two.submit(requests(CALL, ["a"], identities=True))
            wait_until(lambda: worker.in_flight() == 1)
            one.cancel()
        row = drain(two, 1)[0]
    assert not row.shared
    assert row.usage.prompt > 0


def test_closing_a_stream_cancels_what_is_in_flight(worker):
    with worker.exchange(delay_ms=200, batch=1) as exchange:
        exchange.submit(requests(CALL, [str(i) for i in range(100)]))
        drain_one = exchange.poll(10)
        assert drain_one
    wait_until(lambda: worker.in_flight() == 0)
    assert len(worker.asked()) < 20


def test_bytes_in_flight_are_bounded(make_worker):
    worker = make_worker(inflight_bytes=50_000)
    call = Call("c", "p")
    seen = []
    with worker.exchange(delay_ms=5, batch=2) as exchange:
        sender = threading.Thread(target=exchange.submit, args=(requests(call, ["x" * 4000] * 60),))
        sender.start()
        while sender.is_alive():
            seen.append(exchange._connection._bytes)
            sender.join(0.01)
        drain(exchange, 60)
    assert max(seen) <= 50_000
    assert max(seen) > 20_000


def test_a_client_that_ignores_the_bound_is_stopped_by_the_front(make_worker):
    worker = make_worker(inflight_bytes=20_000)
    endpoint = ensure(worker.conf)
    header = StreamHeader("app", "1", "default", worker.model(delay_ms=200, batch=1), CALL)
    with connect(endpoint) as client:
        writer, reader = client.do_exchange(
            flight.FlightDescriptor.for_command(header.to_json()), call_options(endpoint)
        )
        writer.begin(UP)
        for i in range(20):
            writer.write_batch(requests_to_batch(requests(CALL, ["x" * 5000], first=i)))
        wait_until(lambda: reader.read_chunk() is not None)
        assert worker.in_flight() <= 5
        writer.done_writing()
        writer.close()


def test_totals_hold_the_errors_that_the_executor_reports(worker):
    with worker.exchange() as exchange:
        exchange.report(2, [RowError("LLM_ANSWER_MISFIT", "does not parse")])
        exchange.submit(requests(CALL, ["a"]))
        drain(exchange, 1)
        totals = exchange.totals
    assert (totals.calls, totals.errors) == (3, 1)
    assert totals.first_errors == ("LLM_ANSWER_MISFIT: does not parse",)


@pytest.mark.parametrize(
    ("model", "condition", "text"),
    [
        (ModelRef(engine="nonsense"), "LLM_BAD_CONF", "accepted: endpoint, native, stub, vllm"),
        (ModelRef(engine="stub", python="/no/such/python"), "LLM_ENGINE_START", "/no/such/python"),
    ],
)
def test_fatal_errors_carry_condition_message_and_remedy(worker, model, condition, text):
    def ask():
        with worker.exchange(model=model) as exchange:
            exchange.submit(requests(CALL, ["a"]))
            drain(exchange, 1)

    failure = failure_of(ask)
    assert failure.condition == condition
    assert text in failure.message
    assert failure.remedy


def test_calls_without_the_token_are_refused(worker):
    endpoint = ensure(worker.conf)
    for token in ("", "wrong"):
        stranger = Endpoint(endpoint.pid, endpoint.location, token)
        with connect(stranger) as client, pytest.raises(flight.FlightUnauthenticatedError):
            list(client.do_action(flight.Action("stats", b""), call_options(stranger)))
        with connect(stranger) as client, pytest.raises(flight.FlightUnauthenticatedError):
            _read_stream(client, stranger)


def _read_stream(client, endpoint):
    _, reader = client.do_exchange(flight.FlightDescriptor.for_command(b"{}"), call_options(endpoint))
    reader.read_chunk()


@pytest.mark.parametrize(
    ("header", "text"),
    [
        (b"not json", "no JSON object"),
        (b"[1]", "no JSON object"),
        (b'{"protocol": 99}', f"speaks protocol {PROTOCOL}, the client protocol 99"),
        (b'{"protocol": %d}' % PROTOCOL, "missing or unknown parts"),
    ],
)
def test_malformed_headers_are_refused(worker, header, text):
    endpoint = ensure(worker.conf)
    with connect(endpoint) as client:
        _, reader = client.do_exchange(flight.FlightDescriptor.for_command(header), call_options(endpoint))
        failure = from_metadata(reader.read_chunk().app_metadata)["failure"]
    assert failure["condition"] == "LLM_WORKER_START"
    assert text in failure["message"]


def test_only_the_client_ends_a_call(worker):
    """A failure reaches clients that are still writing; where both ended the call, gRPC would abort the client."""
    endpoint, batch = ensure(worker.conf), requests_to_batch(requests(CALL, ["a"]))
    refused = StreamHeader("app", "1", "default", TOO_LARGE, CALL)
    failing = StreamHeader("app", "2", "default", worker.model(), CALL, Terms(max_rows=1))
    for header in (refused, failing):
        with connect(endpoint) as client:
            descriptor = flight.FlightDescriptor.for_command(header.to_json())
            writer, reader = client.do_exchange(descriptor, call_options(endpoint))
            writer.begin(UP)
            for _ in range(2):
                writer.write_batch(batch)
            while "failure" not in from_metadata(reader.read_chunk().app_metadata):
                pass
            for _ in range(200):  # with time enough for the end of the call to arrive
                writer.write_batch(batch)
                time.sleep(0.001)
            writer.write_metadata(END)
            with pytest.raises(StopIteration):
                reader.read_chunk()
            writer.close()


def test_refusals_are_never_taken_for_lost_workers(worker):
    def ask():
        with worker.exchange(model=TOO_LARGE) as exchange:
            exchange.submit(requests(CALL, ["a"]))
            drain(exchange, 1)

    assert {failure_of(ask).condition for _ in range(100)} == {"LLM_WORKER_MEMORY"}


def test_a_batch_of_another_schema_ends_only_its_own_stream(worker):
    endpoint = ensure(worker.conf)
    header = StreamHeader("app", "1", "default", worker.model(), CALL)
    with connect(endpoint) as client:
        writer, reader = client.do_exchange(
            flight.FlightDescriptor.for_command(header.to_json()), call_options(endpoint)
        )
        writer.begin(pa.schema([("x", pa.int64())]))
        writer.write_batch(pa.record_batch([[1]], names=["x"]))
        assert "schema" in from_metadata(reader.read_chunk().app_metadata)["failure"]["message"]
    with worker.exchange() as exchange:
        exchange.submit(requests(CALL, ["a"]))
        drain(exchange, 1)


def test_logs_hold_no_user_data(worker):
    with worker.exchange(fail_marker="secret") as exchange:
        exchange.submit(requests(CALL, ["a secret question"]))
        drain(exchange, 1)
    assert "secret question" not in Path(worker.rendezvous.log).read_text()


@pytest.mark.parametrize(("isolation", "hits"), [("none", [0, 1, 1]), ("pool", [0, 1, 0]), ("query", [0, 0, 0])])
def test_the_prefix_cache_is_separable_by_pool_and_query(worker, isolation, hits):
    """The same long prompt by two queries of one pool, then by one of another pool."""
    cached = []
    for execution, pool in (("1", "a"), ("2", "a"), ("3", "b")):
        with worker.exchange(execution=execution, pool=pool, terms=Terms(isolation)) as exchange:
            exchange.submit(requests(CALL, ["x" * 400]))
            cached.append(drain(exchange, 1)[0].usage.cached > 0)
    assert cached == [bool(hit) for hit in hits]


def test_a_query_may_ask_no_more_rows_than_its_limit_over_all_of_its_streams(worker):
    terms, texts = Terms(max_rows=30), [str(i) for i in range(20)]
    with worker.exchange(terms=terms) as exchange:
        exchange.submit(requests(CALL, texts, identities=True))
        drain(exchange, 20)
    with worker.exchange(terms=terms) as exchange:
        exchange.submit(requests(CALL, texts, identities=True))
        assert all(row.shared for row in drain(exchange, 20).values()), "remembered answers are not asked"
        exchange.submit(requests(CALL, [f"new {i}" for i in range(11)], first=100))
        failure = failure_of(lambda: drain(exchange, 11))
    assert failure.condition == "LLM_LIMIT_EXCEEDED"
    assert "spark.llm.limit.rows = 30" in failure.message
    assert len(worker.asked()) == 20


def test_a_query_ends_at_its_deadline(worker):
    def ask(execution, seconds):
        terms = Terms(deadline_seconds=seconds)
        with worker.exchange(execution=execution, terms=terms, delay_ms=100, batch=1) as exchange:
            exchange.submit(requests(CALL, [str(i) for i in range(50)]))
            drain(exchange, 50)

    failure = failure_of(lambda: ask("1", 1.0))
    assert failure.condition == "LLM_LIMIT_EXCEEDED"
    assert "spark.llm.limit.seconds = 1" in failure.message
    wait_until(lambda: worker.in_flight() == 0)
    ask("2", 0.0)


def test_bytes_in_flight_of_all_streams_are_bounded_and_every_stream_goes_on(make_worker):
    worker, seen = make_worker(queue_bytes=100_000), []
    model = worker.model(delay_ms=10, batch=1)

    def task(number):
        with worker.exchange(execution=str(number), model=model) as exchange:
            for start in range(0, 40, 2):
                exchange.submit(requests(CALL, ["x" * 4000] * 2, first=start))
            rows.append(len(drain(exchange, 40)))

    rows = []
    threads = [threading.Thread(target=task, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        models = worker.client.stats().get("models", [])
        seen += [model["in_flight"] for model in models]
        threads[0].join(0.05)
    assert rows == [40] * 6
    assert 10 < max(seen) <= 25 + 12, "what fits, and one batch of two rows from each of six streams"


def test_answers_that_nobody_reads_stop_the_stream(make_worker):
    """The memo answers at once; a client that does not take its answers may not fill the front's memory with them."""
    worker = make_worker(inflight_bytes=50_000)
    endpoint = ensure(worker.conf)
    header = StreamHeader("app", "1", "default", worker.model(echo=True), CALL)
    text = "x" * 5000
    batches = [requests_to_batch(requests(CALL, [text], first=i, identities=True)) for i in range(5000)]
    with connect(endpoint) as client:
        writer, reader = client.do_exchange(
            flight.FlightDescriptor.for_command(header.to_json()), call_options(endpoint)
        )
        writer.begin(UP)
        writer.write_batch(batches[0])
        reader.read_chunk()
        sender = threading.Thread(target=_write_all, args=(writer, batches[1:]), daemon=True)
        sender.start()
        sender.join(3.0)
        assert sender.is_alive(), "the front took 25 MB of requests whose answers nobody read"
        answered = worker.client.stats()["clients"][0]["rows"]
        reader.cancel()
        sender.join()
    assert answered < 4000


def _write_all(writer, batches):
    with contextlib.suppress(pa.ArrowException, OSError):
        for batch in batches:
            writer.write_batch(batch)


def test_prompts_are_logged_by_opt_in_only_and_for_the_user_alone(make_worker):
    for wanted in (False, True):
        worker = make_worker(log_prompts=wanted)
        with worker.exchange(fail_marker="BAD") as exchange:
            exchange.submit(requests(CALL, ["a private question", "a BAD one"]))
            drain(exchange, 2)
        texts = {file.name: file.read_text() for file in worker.folder.iterdir() if file.is_file()}
        assert any("private question" in text for text in texts.values()) is wanted
    log = worker.rendezvous.log.with_suffix(".prompts")
    assert log.stat().st_mode & 0o777 == 0o600
    lines = sorted(map(json.loads, log.read_text().splitlines()), key=lambda line: line["prompt"])
    assert [line["prompt"] for line in lines] == ["pa BAD one", "pa private question"]
    assert lines[0]["error"]["condition"] == "LLM_ROW_FAILED"
    assert lines[1]["answer"].startswith("stub:")
