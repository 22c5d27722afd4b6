"""A real standalone cluster on this machine: a master, two workers, two executors, one engine worker for both."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyspark
import pytest

from spark_llm.session import settings
from tests.connect.conftest import free_port

pytestmark = pytest.mark.cluster
HOME = Path(pyspark.__file__).parent
CLASSES = "org.apache.spark.deploy."

DRIVER = """
import json, sys
from pyspark.sql import SparkSession
spark = SparkSession.builder.getOrCreate()
rows = [(i, f"text {i % 40}") for i in range(400)]
spark.createDataFrame(rows, "id INT, t STRING").repartition(8).createOrReplaceTempView("v")
answers = spark.sql("SELECT id, llm('Q', t) a FROM v ORDER BY id").collect()
executors = spark.sparkContext._jsc.sc().statusTracker().getExecutorInfos()
print("RESULT" + json.dumps({"answers": [r.a for r in answers], "executors": len(executors) - 1}))
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
            self.spawn(f"worker{number}", CLASSES + "worker.Worker", address, "-c", "1", "-m", "1g", *ports)
        return address

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


def test_same_answers_and_one_engine_worker_per_host(cluster, tmp_path):
    (tmp_path / "driver.py").write_text(DRIVER)
    (tmp_path / "calls").mkdir()
    conf = {
        **settings(),
        "spark.llm.engine": "stub",
        "spark.llm.engine.args": json.dumps({"calls_dir": str(tmp_path / "calls")}),
        "spark.llm.worker.dir": str(tmp_path / "engine"),
        "spark.llm.worker.idleSeconds": "5",
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
    options = [part for key, value in conf.items() for part in ("--conf", f"{key}={value}")]
    command = [str(HOME / "bin" / "spark-submit"), "--master", cluster.start(), *options, str(tmp_path / "driver.py")]
    done = subprocess.run(command, env=cluster.environment, capture_output=True, text=True, timeout=240, check=False)
    assert "RESULT" in done.stdout, done.stderr[-3000:]
    result = json.loads(done.stdout.split("RESULT")[1])
    assert result["executors"] == 2
    assert [result["answers"][i] for i in range(400)] == [result["answers"][i % 40] for i in range(400)]
    assert len(set(result["answers"])) == 40
    assert sum(len(file.read_text().split()) for file in (tmp_path / "calls").glob("*.calls")) == 40
    assert len(list((tmp_path / "calls").glob("*.calls"))) == 1
