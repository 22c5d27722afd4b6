"""Fixtures of the serving tests: workers that end with their test."""

import shutil
import tempfile
from pathlib import Path

import pytest

from tests.serving.worker_kit import Worker, alive, wait_until


@pytest.fixture
def make_worker():
    """A factory of workers; all are ended after the test."""
    made = []

    def make(folder=None, **conf):
        made.append(Worker(folder or Path(tempfile.mkdtemp(prefix="llm-")), **conf))
        return made[-1]

    yield make
    for worker in made:
        if (endpoint := worker.rendezvous.read()) is not None:
            worker.client.shutdown()
            wait_until(lambda pid=endpoint.pid: not alive(pid))
        shutil.rmtree(worker.folder, ignore_errors=True)


@pytest.fixture
def worker(make_worker):
    return make_worker()
