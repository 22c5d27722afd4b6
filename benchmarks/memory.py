"""Peak resident memory of groups of processes, sampled from /proc."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType
from typing import Self

SAMPLE_SECONDS = 0.2


class PeakMemory:
    """Within the block, the largest resident size seen of processes whose command line holds a marker.

    `groups` maps a name to (marker, combine); `combine` is `max` for the largest process or `sum` for all together.
    """

    def __init__(self, **groups: str) -> None:
        self._groups = groups
        self.mib: dict[str, float] = dict.fromkeys(groups, 0.0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            for entry in Path("/proc").iterdir():
                if entry.name.isdigit():
                    self._look(entry)

    def _look(self, process: Path) -> None:
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            group = next((name for name, marker in self._groups.items() if marker in command), None)
            if group is None:
                return
            status = (process / "status").read_text()
        except OSError:
            return  # it ended meanwhile
        resident = next((line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")), "0")
        self.mib[group] = max(self.mib[group], int(resident) / 1024)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
