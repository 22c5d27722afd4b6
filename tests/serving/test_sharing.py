"""Concurrent Spark queries share their worker's engine: by the policy, and by the weights of their pools."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager

import pytest
from spark_llm.serving.client import connect

from spark_llm.conf import Settings
from spark_llm.executor.connect import worker_conf
from tests.serving.worker_kit import wait_until

pytestmark = [pytest.mark.spark, pytest.mark.slow]
HEAVY, LIGHT, TOKENS = 2000, 12, 8


class Queries:
    """Sessions over one worker, each asking in a thread, and what the worker counts for them."""

    def __init__(self, root, folder, policy):
        args = {"policy": policy, "quantum": 200, "max_running": 4, "kv_tokens": 8192, "max_length": 512}
        self.root, self.sessions, self.threads, self.failed = root, {}, {}, {}
        self.conf = {
            "spark.llm.engine": "native",
            "spark.llm.engine.args": json.dumps(args),
            "spark.llm.placement": "worker",
            "spark.llm.optimize.enabled": "false",  # planned at once: the small query comes while the large one waits
            "spark.llm.maxTokens": str(TOKENS),
            "spark.llm.worker.dir": str(folder),
            "spark.llm.worker.idleSeconds": "60",
            "spark.llm.pool.weights": '{"many": 3}',
        }
        self.worker = connect(worker_conf(Settings(self.conf)))

    def start(self, name, rows, pool):
        session = self.sessions[name] = self.root.newSession()
        for key, value in {**self.conf, "spark.llm.pool": pool}.items():
            session.conf.set(key, value)
        text = f"concat(id * 7919, ' {name} writes about film ', id, ': a story of ', id % 17, ' friends')"
        query = f"SELECT count(llm('Write a summary.', text)) FROM (SELECT {text} AS text FROM range(0, {rows}, 1, 1))"

        def run():
            session.addTag(name)
            try:
                session.sql(query).collect()
            except Exception as problem:  # the test ends queries that have shown what they should
                self.failed[name] = str(problem).lower()

        self.threads[name] = threading.Thread(target=run)
        self.threads[name].start()

    def client(self, pool):
        """Counters of the query of a pool; zero before it came."""
        clients = [client for client in self.worker.stats().get("clients", ()) if client["pool"] == pool]
        return clients[0] if clients else dict.fromkeys(("rows", "prompt", "cached", "output", "queued", "running"), 0)

    def wait_for(self, condition):
        wait_until(condition, seconds=240)

    def end(self):
        for name, thread in self.threads.items():
            self.sessions[name].interruptTag(name)
            thread.join()
        self.worker.shutdown()


@contextmanager
def queries(root, folder, policy):
    made = Queries(root, folder, policy)
    try:
        yield made
    finally:
        made.end()


@pytest.mark.parametrize("policy", ["dlpm", "fcfs"])
def test_a_small_query_does_not_wait_behind_a_large_one_unless_told_to(spark_root, tmp_path, policy):
    with queries(spark_root, tmp_path / "worker", policy) as asked:
        asked.start("warm", 2, "warm")
        asked.threads["warm"].join()
        asked.start("heavy", HEAVY, "heavy")
        asked.wait_for(lambda: asked.client("heavy")["queued"] > HEAVY // 2)
        asked.start("light", LIGHT, "light")
        asked.wait_for(lambda: (light := asked.client("light"))["queued"] + light["rows"] > 0)
        before = asked.client("heavy")["rows"]
        asked.wait_for(lambda: asked.client("light")["rows"] == LIGHT)
        after = asked.client("heavy")["rows"]
        assert before < HEAVY / 2, "the large query is at work"
        if policy == "dlpm":
            # rows that ran already and those between two looks count too
            assert after - before < 20 * LIGHT, "they take turns"
        else:
            assert after > HEAVY * 0.95
    assert "light" not in asked.failed


def test_pools_are_served_by_their_weights(spark_root, tmp_path):
    with queries(spark_root, tmp_path / "worker", "dlpm") as asked:
        for pool in ("few", "many"):
            asked.start(pool, HEAVY, pool)
            asked.wait_for(lambda pool=pool: asked.client(pool)["queued"] > HEAVY // 2)

        def served():
            clients = [asked.client(pool) for pool in ("few", "many")]
            assert all(client["queued"] for client in clients), "both wait all the time"
            return [client["prompt"] - client["cached"] + 2 * client["output"] for client in clients]

        before = served()
        asked.wait_for(lambda: asked.client("many")["rows"] > HEAVY // 3)
        few, many = (now - then for now, then in zip(served(), before, strict=True))
        assert many / few == pytest.approx(3, rel=0.25)
