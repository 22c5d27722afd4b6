"""A query cancelled in Spark is cancelled in the engine, counted in the engine's own steps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from spark_llm.serving.core import Call

from spark_llm.executor.kill_watch import KillWatch
from spark_llm.session import settings
from tests.serving.worker_kit import drain, requests, wait_until

STEP_MS = 100
ROWS = 4000
DRIVER = """
import json, sys, threading
from pyspark.sql import SparkSession
builder = SparkSession.builder.master("local[2]")
for key, value in json.loads(sys.argv[1]).items():
    builder = builder.config(key, value)
spark = builder.getOrCreate()
spark.range(int(sys.argv[2])).selectExpr("concat('row ', id) AS t").createOrReplaceTempView("v")

def run():
    try:
        spark.sql("SELECT count(llm('Q', t)) FROM v").collect()
    except Exception as problem:
        print("ENDED", "cancel" in str(problem).lower(), flush=True)

query = threading.Thread(target=run)
query.start()
print("STARTED", flush=True)
sys.stdin.readline()
spark.sparkContext.cancelAllJobs()
print("CANCELLED", flush=True)
query.join()
sys.stdin.readline()
spark.stop()
"""
CASES = {
    "as conf/ sets it": (
        {"spark.plugins": "io.sparkllm.catalyst.LlmPlugin", "spark.python.task.killTimeout": "100ms"},
        1,
    ),
    "with Spark's defaults": ({}, 4),
}


@pytest.mark.spark
@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_cancelled_query_is_cancelled_in_the_engine(make_worker, case):
    extra, seconds = CASES[case]
    worker = make_worker(Path(tempfile.mkdtemp(prefix="llm-")), idle_seconds=60.0)
    conf = {
        **settings(),
        "spark.ui.enabled": "false",
        "spark.llm.engine": "stub",
        "spark.llm.engine.args": json.dumps(dict(worker.model(delay_ms=STEP_MS, batch=1).args)),
        "spark.llm.worker.dir": str(worker.folder),
        "spark.llm.partitions": "2",
        "spark.llm.report.enabled": "false",
        "spark.log.level": "OFF",
        **extra,
    }
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, json.dumps(conf), str(ROWS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with driver:
        try:
            wait_until(lambda: len(worker.asked()) > 2, seconds=240)
            driver.stdin.write("cancel\n")
            driver.stdin.flush()
            while "CANCELLED" not in driver.stdout.readline():
                assert driver.poll() is None
            before = len(worker.asked())
            wait_until(lambda: worker.in_flight() == 0, seconds=60)
            after = len(worker.asked())
            assert after - before <= seconds * 1000 / STEP_MS + 1, "steps for nobody"
            assert before < ROWS

            call = Call("other", "p")
            with worker.exchange(call, execution="other", delay_ms=STEP_MS, batch=1) as exchange:
                exchange.submit(requests(call, ["a", "b", "c"]))
                drain(exchange, 3)
            # one step may have been under way
            assert len(worker.asked()) <= after + 4, "nothing of the cancelled query was computed meanwhile"
            wait_until(lambda: not list((worker.folder / "killed").glob("*")))
            driver.stdin.write("end\n")
            driver.stdin.flush()
            assert "ENDED True" in driver.stdout.read()
        finally:
            driver.kill()


def test_the_watch_ends_its_process_when_the_sign_appears(tmp_path):
    (tmp_path / "killed").mkdir()
    if (child := os.fork()) == 0:
        with KillWatch(tmp_path, "app 1", 7):
            time.sleep(30)
        os._exit(0)
    (tmp_path / "killed" / "app_1-8").touch()
    (tmp_path / "killed" / "app_1-7").touch()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


def test_the_watch_ends_with_its_task(tmp_path):
    with KillWatch(tmp_path, "app", 1) as watch:
        pass
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / "app-1").touch()
    assert watch._ended.wait(1)
    time.sleep(0.3)  # this process lives
