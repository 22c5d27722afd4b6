"""The process of one loaded model: reads frames from the front, steps the engine, sends what is finished.

Run as `python -m spark_llm.serving.worker.replica <file descriptor of its socket>`. It ends when the front does.
"""

from __future__ import annotations

import gc
import os
import queue
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from functools import lru_cache
from typing import Any, NoReturn

import pyarrow as pa
from spark_llm.serving.core import Call, ClientRef, Engine, EngineFailure, ModelRef
from spark_llm.serving.engines import create_engine
from spark_llm.serving.protocol import UP, batch_to_requests, failure_to_dict, finished_to_batch
from spark_llm.serving.worker.frames import Channel

from spark_llm.errors import redact

Frame = tuple[dict[str, Any], pa.Buffer]
STATS_SECONDS = 0.5


@lru_cache(maxsize=256)
def _call(text: str) -> Call:
    """One `Call` object for all frames of a call site."""
    import json

    return Call.from_dict(json.loads(text))


class Replica:
    """Owns the engine in one thread; a second thread reads, so that the front can always send."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._inbox: queue.SimpleQueue[Frame] = queue.SimpleQueue()
        self._stats_sent = 0.0
        threading.Thread(target=self._receive, daemon=True).start()

    def _receive(self) -> None:
        while (frame := self._channel.receive()) is not None:
            self._inbox.put(frame)
        os._exit(0)  # the front is gone: nobody waits for answers

    def run(self) -> NoReturn:
        """Load the model that the first frame names, then serve for ever."""
        head, _ = self._inbox.get()
        engine = _load(ModelRef(**head["model"]))
        gc.freeze()  # a full collection need not look at what stays: it would hold up a step for a tenth of a second
        self._channel.send({"op": "ready", "capacity": asdict(engine.capacity())})
        while True:
            for head, body in self._arrived(wait=not engine.has_work()):
                _apply(engine, head, body)
            finished = engine.step()
            if finished:
                self._channel.send({"op": "finished"}, finished_to_batch(finished))
            self._send_stats(engine)

    def _arrived(self, wait: bool) -> Iterator[Frame]:
        try:
            while True:
                yield self._inbox.get(block=wait)
                wait = False
        except queue.Empty:
            return

    def _send_stats(self, engine: Engine) -> None:
        now = time.monotonic()
        if now - self._stats_sent > STATS_SECONDS or not engine.has_work():
            self._stats_sent = now
            self._channel.send({"op": "stats", "stats": dict(engine.stats()), "running": dict(engine.running())})


def _load(model: ModelRef) -> Engine:
    try:
        return create_engine(model)
    except EngineFailure:
        raise
    except Exception as problem:
        print(redact(traceback.format_exc()), file=sys.stderr)
        message = f"engine '{model.engine}' cannot serve model '{model.name}': {redact(str(problem))}"
        raise EngineFailure(condition="LLM_ENGINE_START", message=message) from problem


def _apply(engine: Engine, head: dict[str, Any], body: pa.Buffer) -> None:
    if head["op"] == "cancel":
        engine.cancel(head["ids"])
    else:
        batch = pa.ipc.read_record_batch(body, UP)
        engine.submit(batch_to_requests(batch, _call(head["call"]), ClientRef(**head["client"]), head["domain"]))


def _log_stack(problem: BaseException) -> None:
    """Log where it failed, without the message: that could hold user data."""
    print(f"replica failed with {type(problem).__name__}", file=sys.stderr)
    for frame in traceback.extract_tb(problem.__traceback__):
        print(f"  {frame.filename}:{frame.lineno} in {frame.name}", file=sys.stderr)


def main() -> NoReturn:
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    try:
        Replica(channel).run()
    except EngineFailure as failure:
        channel.send({"op": "failed", "failure": failure_to_dict(failure)})
        sys.exit(1)
    except Exception as problem:
        _log_stack(problem)
        sys.stderr.flush()
        os._exit(1)


if __name__ == "__main__":
    main()
