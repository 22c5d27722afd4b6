"""A real standalone cluster on this machine: a master, two workers, two executors, one engine worker for both."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyspark
import pytest

from spark_llm.session import settings
from tests.connect.conftest import free_port
from tests.serving.worker_kit import wait_until

pytestmark = pytest.mark.cluster
HOME = Path(pyspark.__file__).parent
CLASSES = "org.apache.spark.deploy."

DRIVER = """
import json, sys
from pathlib import Path
from pyspark.sql import SparkSession
spark = SparkSession.builder.getOrCreate()
rows = [(i, f"text {i % 40}") for i in range(400)]
spark.createDataFrame(rows, "id INT, t STRING").repartition(8).createOrReplaceTempView("v")
answers = spark.sql("SELECT id, llm('Q', t) a FROM v ORDER BY id").collect()
executors = spark.sparkContext._jsc.sc().statusTracker().getExecutorInfos()
worker = json.loads(next(Path(spark.conf.get("spark.llm.worker.dir")).glob("worker-*.json")).read_text())
conf = json.loads(Path(f"/proc/{worker['pid']}/cmdline").read_text().split(chr(0))[-2])
print("RESULT" + json.dumps({"answers": [r.a for r in answers], "executors": len(executors) - 1, "conf": conf}))
spark.stop()
"""
LONG_DRIVER = """
import json, sys
from pyspark.sql import SparkSession
spark = SparkSession.builder.getOrCreate()
answers = spark.sql(f"SELECT id, llm('Q', concat('text ', id)) a FROM range({sys.argv[1]})").collect()
print("RESULT" + json.dumps(sorted((r.id, r.a) for r in answers)))
spark.stop()
"""


BUDGET_DRIVER = """
import json
from pyspark.sql import SparkSession
spark = SparkSession.builder.getOrCreate()
try:
    spark.sql("SELECT id, llm('Q', concat('text ', id)) a FROM range(600)").collect()
    print("RESULT" + json.dumps("no error"))
except Exception as error:
    print("RESULT" + json.dumps(str(error)))
spark.stop()
"""


class Cluster:
    def __init__(self, folder: Path) -> None:
        self.folder, self.port, self.processes = folder, free_port(), []
        self.environment = {**os.environ, "SPARK_HOME": str(HOME), "SPARK_LOCAL_IP": "127.0.0.1"}
        self.environment |= {"PYSPARK_PYTHON": sys.executable, "SPARK_WORKER_DIR": str(folder)}

    def spawn(self, name: str, *command: str) -> None:
        log = (self.folder / f"{name}.log").open("wb")
        self.processes.append(
            subprocess.Popen(
                [str(HOME / "bin" / "spark-class"), *command],
                stdout=log,
                stderr=log,
                env=self.environment,
                start_new_session=True,
            )
        )

    def start(self) -> str:
        address = f"spark://127.0.0.1:{self.port}"
        ports = ["--host", "127.0.0.1", "--webui-port", str(free_port())]
        self.spawn("master", CLASSES + "master.Master", "--port", str(self.port), *ports)
        time.sleep(3)
        for number in range(2):
            ports[-1] = str(free_port())
            self.environment["XDG_RUNTIME_DIR"] = str(self.folder / f"host{number}")  # of the worker, and its executor
            self.spawn(f"worker{number}", CLASSES + "worker.Worker", address, "-c", "1", "-m", "1g", *ports)
        return address

    def submit(self, driver: str, conf: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
        """Start the cluster and a driver on it."""
        (self.folder / "driver.py").write_text(driver)
        options = [part for key, value in conf.items() for part in ("--conf", f"{key}={value}")]
        command = [str(HOME / "bin" / "spark-submit"), "--master", self.start(), *options]
        with (self.folder / "driver.log").open("wb") as log:
            process = subprocess.Popen(
                [*command, str(self.folder / "driver.py"), *arguments],
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def result(self, driver: subprocess.Popen[str]) -> Any:
        """What a driver prints after the word RESULT."""
        output, _ = driver.communicate(timeout=240)
        assert "RESULT" in output, (self.folder / "driver.log").read_text()[-3000:]
        return json.loads(output.split("RESULT")[1])

    def executors(self) -> list[int]:
        """Process ids of the executors, which are children of the cluster's workers."""
        tasks = [task for process in self.processes for task in Path(f"/proc/{process.pid}/task").glob("*/children")]
        children = [int(pid) for task in tasks for pid in task.read_text().split()]
        return [pid for pid in children if b"CoarseGrained" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def stop(self) -> None:
        for process in reversed(self.processes):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        for process in self.processes:
            process.wait(30)


@pytest.fixture
def cluster(tmp_path):
    made = Cluster(tmp_path)
    yield made
    made.stop()


def conf_of(folder: Path, **args: object) -> dict[str, str]:
    (folder / "calls").mkdir()
    return {
        **settings(),
        "spark.llm.engine": "stub",
        "spark.llm.engine.args": json.dumps({"calls_dir": str(folder / "calls"), **args}),
        "spark.llm.worker.dir": str(folder / "engine"),
        "spark.llm.worker.idleSeconds": "5",
        "spark.llm.worker.hangSeconds": "77",
        "spark.plugins": "io.sparkllm.catalyst.LlmPlugin",
        "spark.llm.worker.eager": "true",
        "spark.executor.memory": "512m",
        "spark.executor.cores": "1",
        "spark.driver.host": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.sql.adaptive.coalescePartitions.enabled": "false",
        "spark.sql.shuffle.partitions": "4",
        "spark.scheduler.minRegisteredResourcesRatio": "1.0",
        "spark.scheduler.maxRegisteredResourcesWaitingTime": "60s",
        "spark.cores.max": "2",
    }


def asked(folder: Path) -> list[str]:
    """Prompts that reached an engine."""
    return [line for file in (folder / "calls").glob("*.calls") for line in file.read_text().split()]


def test_same_answers_and_one_engine_worker_per_host(cluster, tmp_path):
    result = cluster.result(cluster.submit(DRIVER, conf_of(tmp_path)))
    assert result["executors"] == 2
    assert (result["conf"]["idle_seconds"], result["conf"]["hang_seconds"]) == (5.0, 77.0)
    assert [result["answers"][i] for i in range(400)] == [result["answers"][i % 40] for i in range(400)]
    assert len(set(result["answers"])) == 40
    assert len(asked(tmp_path)) == 40
    assert len(list((tmp_path / "calls").glob("*.calls"))) == 1


def test_an_executor_that_is_killed_at_work_costs_no_row(cluster, tmp_path):
    rows = 400
    driver = cluster.submit(LONG_DRIVER, conf_of(tmp_path, delay_ms=50, batch=2, echo=True), str(rows))
    wait_until(lambda: len(asked(tmp_path)) > rows // 4, seconds=200)
    victims = cluster.executors()
    assert len(victims) == 2
    os.kill(victims[0], signal.SIGKILL)
    assert len(asked(tmp_path)) < rows
    answers = cluster.result(driver)
    assert [number for number, _ in answers] == list(range(rows)), "each row once"
    assert all(answer.endswith(f'"text {number}"\n}}') for number, answer in answers), "with its own answer"
    repeated = len(asked(tmp_path)) - rows
    assert 0 <= repeated < rows // 4, "what was answered is remembered, what was in flight is asked again"


def test_a_budget_is_one_of_both_hosts(cluster, tmp_path):
    """Two executors with an engine worker each: both stop when they have taken the budget together."""
    conf = conf_of(tmp_path, delay_ms=100, batch=2)
    conf |= {"spark.llm.budget.tokens": "1800", "spark.llm.planner.sampleRows": "0", "spark.task.maxFailures": "1"}
    del conf["spark.llm.worker.dir"]
    error = cluster.result(cluster.submit(BUDGET_DRIVER, conf))
    assert "has taken" in error, error[:2000]
    folders = [tmp_path / f"host{number}" / "spark-llm" / "spent" for number in range(2)]
    told = [sum(map(int, file.read_text().split()[::2])) for folder in folders for file in folder.glob("*.here")]
    assert len(told) == 2
    assert all(told)
    assert max(told) < 1800 < sum(told) < 2 * 1800, "neither host had taken it alone"
