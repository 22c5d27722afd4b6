"""Real Spark Connect servers on loopback, one with the extension and one without."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyspark
import pytest

from spark_llm.session import settings
from tests.conftest import Calls, stub_conf

START_SECONDS = 120
SERVER = "org.apache.spark.sql.connect.service.SparkConnectServer"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_server(log: Path, conf: dict[str, str]) -> tuple[subprocess.Popen, str]:
    """A server on a free loopback port; waits until it accepts connections."""
    port = free_port()
    home = Path(pyspark.__file__).parent
    given = {
        "spark.master": "local[2]",
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": str(port),
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.warehouse.dir": str(log.parent / "warehouse"),
        "spark.sql.catalogImplementation": "in-memory",
        **conf,
    }
    options = [part for key, value in given.items() for part in ("--conf", f"{key}={value}")]
    command = [str(home / "bin" / "spark-submit"), "--class", SERVER, *options, "spark-internal"]
    environment = {**os.environ, "PYSPARK_PYTHON": sys.executable, "SPARK_HOME": str(home)}
    environment.pop("SPARK_REMOTE", None)
    with log.open("wb") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out, env=environment, start_new_session=True)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return server, f"sc://127.0.0.1:{port}"
        time.sleep(0.3)
    stop(server)
    pytest.fail(f"the Connect server did not start:\n{log.read_text()[-3000:]}")


def stop(server: subprocess.Popen) -> None:
    if server.poll() is None:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


class Remote:
    """A Connect session and the calls that its stub engine was asked."""

    def __init__(self, session, calls: Calls) -> None:
        self.spark, self.calls = session, calls


@pytest.fixture(scope="module", params=["extension", "plain"])
def remote(request, tmp_path_factory) -> Iterator[Remote]:
    from pyspark.sql.connect.session import SparkSession

    folder = tmp_path_factory.mktemp(request.param)
    (folder / "calls").mkdir()
    conf = stub_conf(folder / "calls")
    if request.param == "extension":
        conf |= settings()
    server, url = start_server(folder / "server.log", conf)
    os.environ["SPARK_CONNECT_MODE_ENABLED"] = "1"  # what SparkSession.builder.remote(...) sets in a client
    try:
        session = SparkSession.builder.remote(url).create()
        yield Remote(session, Calls(folder / "calls"))
        session.stop()
    finally:
        del os.environ["SPARK_CONNECT_MODE_ENABLED"]
        stop(server)
