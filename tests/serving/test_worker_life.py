"""The worker's life: found or started once, alive by leases, gone when idle, refused where others could interfere."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from spark_llm.serving.client import WorkerConf, connect
from spark_llm.serving.core import Call
from spark_llm.serving.worker import leases
from spark_llm.serving.worker.ensure import ensure
from spark_llm.serving.worker.rendezvous import worker_folder

from tests.serving.worker_kit import alive, drain, failure_of, requests, wait_until

pytestmark = pytest.mark.slow

CALL = Call("c", "p")


def names(worker):
    """What the worker has left in its folder, but for its log and the tests' own folder."""
    return {p.name for p in worker.folder.iterdir() if p.suffix != ".log"} - {"calls"}


def test_an_idle_worker_leaves_no_process_socket_or_lock(make_worker):
    worker = make_worker(idle_seconds=0.5)
    with worker.exchange() as exchange:
        exchange.submit(requests(CALL, ["a"]))
        drain(exchange, 1)
        pids = worker.pids()
    wait_until(lambda: not any(map(alive, pids)))
    assert names(worker) == set()


def test_a_stream_or_a_lease_keeps_the_worker_alive(make_worker):
    worker = make_worker(idle_seconds=1.0)
    with worker.exchange():
        front = worker.pids()[0]
        passed = threading.Event()
        assert not passed.wait(2.0)
        assert alive(front)
    for _ in range(20):
        leases.touch(worker.folder, "app")
        assert not passed.wait(0.1)
    assert alive(front)
    leases.release(worker.folder, "app")
    wait_until(lambda: not alive(front))


def test_simultaneous_starters_give_one_worker(worker):
    command = [sys.executable, "-m", "spark_llm.serving.worker.ensure", "--dir", str(worker.folder)]
    starters = [
        subprocess.Popen([*command, "--idle-seconds", "20"], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    found = [json.loads(starter.communicate()[0])["pid"] for starter in starters]
    assert len(set(found)) == 1
    assert alive(found[0])
    assert {"worker-" + worker.rendezvous.key + suffix for suffix in (".json", ".sock")} == names(worker)


def test_the_ensure_command_takes_a_lease_and_reports_failures(worker):
    command = [sys.executable, "-m", "spark_llm.serving.worker.ensure", "--dir"]
    subprocess.run([*command, str(worker.folder), "--application", "app-1"], check=True, capture_output=True)
    assert (worker.folder / "leases" / "app-1").exists()
    worker.folder.chmod(0o777)
    failed = subprocess.run([*command, str(worker.folder)], check=False, capture_output=True, text=True)
    worker.folder.chmod(0o700)
    assert failed.returncode == 1
    assert failed.stderr.startswith("[LLM_WORKER_START]")


def test_workers_of_other_gpus_are_apart(make_worker):
    one = make_worker(gpus="0")
    two = make_worker(one.folder, gpus="1")
    assert ensure(one.conf).pid != ensure(two.conf).pid
    assert ensure(one.conf) == ensure(one.conf)


def test_stale_files_are_replaced(worker):
    worker.rendezvous.file.write_text('{"pid": 999999999, "location": "grpc+unix:///nowhere", "token": "t"}')
    worker.rendezvous.socket.write_text("")
    with worker.exchange() as exchange:
        exchange.submit(requests(CALL, ["a"]))
        drain(exchange, 1)


def test_a_live_process_that_is_no_worker_is_not_mistaken_for_one(worker):
    stale = {"pid": os.getpid(), "location": f"grpc+unix://{worker.rendezvous.socket}", "token": "t"}
    worker.rendezvous.file.write_text(json.dumps(stale))
    assert ensure(worker.conf).pid != os.getpid()


def test_a_folder_too_deep_for_a_socket_uses_loopback(make_worker, tmp_path):
    folder = tmp_path / ("d" * 100)
    folder.mkdir(mode=0o700)
    worker = make_worker(folder)
    assert ensure(worker.conf).location.startswith("grpc+tcp://127.0.0.1:")
    with worker.exchange() as exchange:
        exchange.submit(requests(CALL, ["a"]))
        drain(exchange, 1)


def test_secrets_are_readable_by_the_owner_alone(worker):
    ensure(worker.conf)
    modes = {p.suffix: p.stat().st_mode & 0o777 for p in worker.folder.iterdir() if p.is_file() or p.is_socket()}
    assert modes == {".json": 0o600, ".sock": 0o600, ".log": 0o600}
    assert worker.folder.stat().st_mode & 0o777 == 0o700


def test_the_token_is_no_argument_or_environment_of_a_process_and_in_no_log(worker):
    with worker.exchange() as exchange:
        exchange.submit(requests(CALL, ["a"]))
        drain(exchange, 1)
    token = worker.rendezvous.read().token
    assert len(token) >= 43, "256 bits"
    shown = [Path(f"/proc/{pid}/{part}").read_text() for pid in worker.pids() for part in ("cmdline", "environ")]
    assert not any(token in text for text in [*shown, worker.rendezvous.log.read_text()])


@pytest.mark.parametrize("spoil", ["open to others", "a link", "a file"])
def test_an_unsafe_folder_is_refused(tmp_path, spoil):
    folder = tmp_path / "worker"
    if spoil == "open to others":
        folder.mkdir()
        folder.chmod(0o755)
    elif spoil == "a link":
        (tmp_path / "real").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "real")
    else:
        folder.write_text("")
    failure = failure_of(lambda: ensure(WorkerConf(dir=str(folder))))
    assert failure.condition == "LLM_WORKER_START"
    assert str(folder) in failure.message
    assert "spark.llm.worker.dir" in failure.remedy


def test_the_default_folder_is_the_users_own(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert worker_folder("") == tmp_path / "spark-llm"
    assert (tmp_path / "spark-llm").stat().st_mode & 0o777 == 0o700


def test_a_python_that_does_not_run_is_named(tmp_path):
    tmp_path.chmod(0o700)
    failure = failure_of(lambda: ensure(WorkerConf(dir=str(tmp_path), python="/no/such/python")))
    assert "/no/such/python" in failure.message


def test_a_model_that_does_not_load_in_time_is_given_up(make_worker):
    worker = make_worker(start_seconds=5.0)
    slow = worker.folder / "slow-python"
    slow.write_text("#!/bin/sh\nsleep 60\n")
    slow.chmod(0o700)

    def ask():
        with worker.exchange(model=worker.model(), call=CALL) as quick:
            quick.submit(requests(CALL, ["a"]))
            drain(quick, 1)
        model = type(worker.model())(engine="stub", python=str(slow))
        with worker.exchange(model=model) as exchange:
            exchange.submit(requests(CALL, ["a"]))
            drain(exchange, 1)

    failure = failure_of(ask)
    assert failure.condition == "LLM_ENGINE_START"
    assert "startSeconds" in failure.message


def test_connecting_and_looking_start_nothing(tmp_path):
    tmp_path.chmod(0o700)
    client = connect(WorkerConf(dir=str(tmp_path)))
    assert client.stats() == {}
    client.shutdown()
    assert list(tmp_path.iterdir()) == []
