"""Which of a model's replicas serves a stream."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence

from spark_llm.serving.protocol import StreamHeader
from spark_llm.serving.scheduler.d2lpm import HostDeficits
from spark_llm.serving.scheduler.dlpm import QUANTUM
from spark_llm.serving.worker.dispatch import Dispatch

KNOWN_PREFIXES = 256


class Placement:
    """D2LPM over replicas. All requests of a stream go to one, as a task's rows are sorted: prefixes stay whole.

    Among the replicas with the fewest streams, one where the stream's client has credit, if possible the one that was
    asked the same instruction last: its prefix is cached there. A stream is charged a quantum until it has ended, then
    what its rows took.
    """

    def __init__(self, dispatches: Sequence[Dispatch]) -> None:
        self._dispatches = {str(number): dispatch for number, dispatch in enumerate(dispatches)}
        self._deficits = HostDeficits(list(self._dispatches))
        self._open: Counter[str] = Counter()
        self._homes: OrderedDict[tuple[str, str, str], str] = OrderedDict()

    def place(self, header: StreamHeader) -> Dispatch:
        """The replica for a stream, started if need be; counts the stream."""
        fewest = min(dispatch.streams for dispatch in self._dispatches.values())
        idle = [name for name, dispatch in self._dispatches.items() if dispatch.streams == fewest]
        prefix = (header.domain, header.call.system or "", header.call.instruction)
        home = self._homes.pop(prefix, "")
        name = self._deficits.choose(header.client, {home: len(header.call.instruction) + 1}, QUANTUM, idle)
        self._homes[prefix] = name
        if len(self._homes) > KNOWN_PREFIXES:
            self._homes.popitem(last=False)
        dispatch = self._dispatches[name]
        dispatch.start()
        dispatch.streams += 1
        self._open[header.client] += 1
        return dispatch

    def end(self, dispatch: Dispatch, client: str, served: float) -> None:
        """A stream of a client has ended, which was served so much."""
        dispatch.streams -= 1
        self._open[client] -= 1
        name = next(name for name, other in self._dispatches.items() if other is dispatch)
        self._deficits.charge(client, name, served - QUANTUM)
        if not self._open[client]:
            del self._open[client]
            self._deficits.forget(client)
