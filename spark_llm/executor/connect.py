"""From a task to an engine: the host's shared worker, or an engine inside this process."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from typing import Any, cast

from pyspark import TaskContext

from spark_llm.conf import Settings
from spark_llm.errors import LlmError
from spark_llm.executor.kill_watch import KillWatch
from spark_llm.executor.spending import Spending
from spark_llm.optimizer.core import CallSpec
from spark_llm.serving.client import connect
from spark_llm.serving.core import Call, ClientRef, Isolation, Terms
from spark_llm.serving.exchange import Exchange
from spark_llm.serving.local import LocalExchange
from spark_llm.serving.worker.rendezvous import WorkerConf, worker_folder

IN_PROCESS_ENGINES = ("stub",)


def application_id(spec: CallSpec) -> str:
    """Spark's application id where the JVM passed it, else this executor's worker daemon."""
    return spec.conf.get("spark.app.id") or f"daemon-{os.getppid()}"


def execution_id() -> str:
    """The SQL execution that this task belongs to ('' outside a query)."""
    context = TaskContext.get()
    return (context and context.getLocalProperty("spark.sql.execution.id")) or ""


def task_partition() -> int:
    """The number of this task's partition, the same in every attempt (0 outside a task)."""
    context = TaskContext.get()
    return context.partitionId() if context else 0


def visible_gpus() -> str:
    """The GPUs of this task where Spark assigns them, else those of the environment; they name the worker."""
    context = TaskContext.get()
    assigned = context.resources().get("gpu") if context else None
    return ",".join(assigned.addresses) if assigned else os.environ.get("CUDA_VISIBLE_DEVICES", "")


def task_client(spec: CallSpec, settings: Settings) -> ClientRef:
    """Who pays: application and SQL execution, and the session's pool."""
    return ClientRef(f"{application_id(spec)}/{execution_id()}", settings.text("pool"), settings.pool_weight())


def open_exchange(spec: CallSpec, settings: Settings, call: Call) -> Exchange:
    """A stream of requests and answers for one task.

    Raises
    ------
    EngineFailure
        When worker or model cannot be had.
    """
    model = settings.model(spec.options.get("model"))
    if settings.text("placement") == "inprocess":
        if model.engine not in IN_PROCESS_ENGINES:
            detail = f"engine {model.engine!r} needs the worker; in process: {', '.join(IN_PROCESS_ENGINES)}"
            raise LlmError("LLM_BAD_CONF", key="spark.llm.placement", value="inprocess", detail=detail)
        return LocalExchange.shared(model, call, terms(settings))
    worker = connect(worker_conf(settings))
    return worker.exchange(
        call,
        model,
        application=application_id(spec),
        execution=execution_id(),
        pool=settings.text("pool"),
        terms=terms(settings),
    )


def kill_watch(spec: CallSpec, settings: Settings) -> AbstractContextManager[object]:
    """What ends this process once the task of the block is killed; nothing outside of tasks and without a worker."""
    context = TaskContext.get()
    if context is None or settings.text("placement") == "inprocess":
        return nullcontext()
    return KillWatch(worker_folder(settings.text("worker.dir")), application_id(spec), context.taskAttemptId())


def spending(spec: CallSpec, settings: Settings) -> Spending | None:
    """What this task's query has taken on all hosts; None outside of tasks and without a worker."""
    if not execution_id() or settings.text("placement") == "inprocess":
        return None
    return Spending(worker_folder(settings.text("worker.dir")), application_id(spec), execution_id())


def terms(settings: Settings) -> Terms:
    """What a query asks for beside its question."""
    return Terms(
        isolation=cast(Isolation, settings.text("cache.isolation")),
        max_rows=settings.integer("limit.rows"),
        deadline_seconds=settings.number("limit.seconds"),
        attempts=settings.integer("retry.attempts"),
        weight=settings.pool_weight(),
    )


def worker_conf(settings: Settings) -> WorkerConf:
    """How to find, start and bound the host's worker: each `spark.llm.worker.*` is the field of its name."""
    read: dict[str, Callable[[str], Any]] = {
        "str": settings.text,
        "float": settings.number,
        "int": settings.integer,
        "bool": settings.flag,
    }
    conf: dict[str, Any] = {"python": settings.text("python") or sys.executable, "gpus": visible_gpus()}
    for field in fields(WorkerConf):
        if field.name not in conf:
            conf[field.name] = read[str(field.type)](f"worker.{_camel(field.name)}")
    return WorkerConf(**conf)


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))
