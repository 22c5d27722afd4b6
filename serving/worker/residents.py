"""The models that a worker has loaded, within a budget of memory; the least recently used make room."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Condition
from typing import Any

from spark_llm.serving.core import EngineFailure, ModelRef
from spark_llm.serving.footprint import BUDGET_SHARE, host_memory, resident_bytes
from spark_llm.serving.worker.dispatch import Dispatch
from spark_llm.serving.worker.placement import Placement

from spark_llm.errors import LlmError

LOOK_SECONDS = 0.2
"""How often those that wait for memory look again: processes end and shrink without telling."""


@dataclass(slots=True, eq=False)
class Model:
    """A model that streams have asked for. `needed`: bytes of memory of each of its replicas, told from its files."""

    ref: ModelRef
    dispatches: list[Dispatch]
    needed: int
    last_used: float = 0.0
    leaving: bool = False
    placement: Placement = field(init=False)

    def __post_init__(self) -> None:
        self.placement = Placement(self.dispatches)

    @property
    def streams(self) -> int:
        return sum(dispatch.streams for dispatch in self.dispatches)

    @property
    def pids(self) -> list[int]:
        """Of its running replicas."""
        return [dispatch.pid for dispatch in self.dispatches if dispatch.pid is not None]

    @property
    def memory(self) -> int:
        """Bytes that its running replicas have, or will have once they are loaded."""
        return sum(max(self.needed, resident_bytes(pid)) for pid in self.pids)

    @property
    def to_load(self) -> int:
        """Bytes that loading what does not run yet will take."""
        return self.needed * (len(self.dispatches) - len(self.pids))


class Residents:
    """The models of a worker, by key.

    Parameters
    ----------
    lock : Condition
        The front's. Every method is called with it held; `admit` gives it back while it waits.
    memory_bytes : int
        Budget for front and replicas together; 0 = `BUDGET_SHARE` of the host.
    most : int
        Models loaded at once, those of servers elsewhere not counted; 0 = as many as the budget holds.
    """

    def __init__(self, lock: Condition, memory_bytes: int, most: int) -> None:
        self._lock, self._most = lock, most
        self.limit = memory_bytes or int(host_memory() * BUDGET_SHARE)
        self.models: dict[str, Model] = {}
        self.evictions = 0

    @property
    def used(self) -> int:
        """Bytes of the front and of all replicas."""
        return resident_bytes(os.getpid()) + sum(model.memory for model in self.models.values())

    def admit(self, model: Model, seconds: float, gone: Callable[[], bool]) -> Model:
        """The resident model equal to `model`, once there is room for one more stream of it.

        Idle models leave, the least recently used first; a busy one never does.

        Raises
        ------
        EngineFailure
            `LLM_WORKER_MEMORY`: at once for a model that can never fit, after `seconds` where others stay busy, or
            once the client is `gone`.
        """
        if (needed := model.needed * len(model.dispatches)) > self.limit:
            raise self._refused(model.ref, needed, "more than the whole budget")
        deadline = time.monotonic() + seconds
        while True:
            resident = self.models.setdefault(model.ref.key, model)
            if not resident.leaving:
                if self._fits(resident):
                    return resident
                if (idle := self._idle(resident)) is not None:
                    self._evict(idle)
                    continue
            if gone() or time.monotonic() > deadline:
                raise self._refused(model.ref, resident.to_load, f"and other queries were busy for {seconds:g} seconds")
            self._lock.wait(LOOK_SECONDS)

    def used_last(self, model: Model) -> None:
        """A stream of this model has ended: whoever waits for memory may look again."""
        model.last_used = time.monotonic()
        self._lock.notify_all()

    def _fits(self, model: Model) -> bool:
        return not self._is_crowded(model) and self.used + model.to_load <= self.limit

    def _is_crowded(self, model: Model) -> bool:
        """Whether too many others are loaded."""
        others = [other for other in self._here() if other is not model]
        return bool(self._most) and model.ref.engine != "endpoint" and len(others) >= self._most

    def _here(self) -> list[Model]:
        """Loaded models that compute on this host."""
        return [model for model in self.models.values() if model.pids and model.ref.engine != "endpoint"]

    def _idle(self, model: Model) -> Model | None:
        """The model to evict for `model`, which itself starts afresh where it has outgrown the budget alone."""
        idle = [other for other in self._here() if not other.streams and not other.leaving]
        others = [other for other in idle if other is not model]
        return min(others or idle, key=lambda other: other.last_used, default=None)

    def _evict(self, model: Model) -> None:
        """End a model's replicas, without the lock: processes take their time to end."""
        model.leaving = True
        self.evictions += 1
        self._lock.release()
        try:
            for dispatch in model.dispatches:
                dispatch.close()
        finally:
            self._lock.acquire()
            self.models.pop(model.ref.key, None)
            self._lock.notify_all()

    def _refused(self, ref: ModelRef, needed: int, why: str) -> EngineFailure:
        sizes = {"needed": _size(needed), "limit": _size(self.limit), "used": _size(self.used)}
        error = LlmError("LLM_WORKER_MEMORY", model=ref.name, why=why, **sizes)
        return EngineFailure(error.condition, error.message, error.remedy)

    def stats(self) -> dict[str, Any]:
        return {"used": self.used, "limit": self.limit, "evictions": self.evictions}


def _size(count: int) -> str:
    return f"{count / (1 << 20):,.0f} MiB"
