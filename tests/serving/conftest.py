"""Fixtures of the serving tests: workers that end with their test, decode runs of either kind."""

import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from spark_llm.kernels import paged_attention
from spark_llm.kernels.paged_attention import PagedBatch, paged_attention_reference
from spark_llm.serving.model_runner import ModelRunner

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


def attend_rows(q, k_cache, v_cache, tables, plan, *, scale, softcap, window):
    """What the compiled kernel computes for decode steps, in any type: each row over all keys of its table."""
    own = plan.segments[plan.segments[:, 6] == 0]
    assert own[:, 0].tolist() == own[:, 2].tolist() == list(range(len(q)))
    batch = PagedBatch(torch.arange(len(q) + 1), own[:, 4], tables, ())
    return paged_attention_reference(q, k_cache, v_cache, batch, scale, softcap=softcap)


@pytest.fixture(params=[False, True], ids=["rigid", "elastic"])
def elastic(request, monkeypatch):
    """Whether rows leave and join decode runs: as with the compiled kernels, but in float32."""
    monkeypatch.setattr(ModelRunner, "elastic", request.param)
    monkeypatch.setattr(paged_attention, "compiled", attend_rows)
    return request.param
