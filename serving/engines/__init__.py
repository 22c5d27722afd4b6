"""The engines, created by name; each is imported only when it is asked for."""

from __future__ import annotations

import os
from collections.abc import Callable

from spark_llm.serving.core import Engine, EngineFailure, ModelRef

THREADS_THAT_WAIT = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}
"""Environment of an engine, before torch loads OpenMP: waiting threads must sleep, Spark's tasks run on the same cores;
but not between the kernels of a layer, where waking them takes longer than the wait (GNU's runtime: a few hundred
microseconds)."""


def _stub(model: ModelRef) -> Engine:
    from spark_llm.serving.engines.stub import StubEngine

    return StubEngine(model.args)


def _native(model: ModelRef) -> Engine:
    for name, value in THREADS_THAT_WAIT.items():
        os.environ.setdefault(name, value)
    from spark_llm.serving.engines.native import NativeEngine

    return NativeEngine(model)


def _vllm(model: ModelRef) -> Engine:
    from spark_llm.serving.engines.vllm import VllmEngine

    return VllmEngine(model)


def _endpoint(model: ModelRef) -> Engine:
    from spark_llm.serving.engines.endpoint import EndpointEngine

    return EndpointEngine(model)


ENGINES: dict[str, Callable[[ModelRef], Engine]] = {
    "endpoint": _endpoint,
    "native": _native,
    "stub": _stub,
    "vllm": _vllm,
}


def create_engine(model: ModelRef) -> Engine:
    """Load `model` with the engine it names; raises EngineFailure where that cannot be done."""
    if model.engine not in ENGINES:
        message = f"engine '{model.engine}' does not exist; accepted: {', '.join(sorted(ENGINES))}"
        raise EngineFailure(condition="LLM_BAD_CONF", message=message, remedy="SET spark.llm.engine to one.")
    return ENGINES[model.engine](model)
