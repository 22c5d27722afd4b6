"""Peak resident memory of this process within a block, from Linux' own high-water mark."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

_SELF = Path("/proc/self")
_RESET_HIGH_WATER_MARK = "5"


@dataclass
class Peak:
    """`mib`: the most that was resident in the block above `base`; set at the block's end."""

    mib: float = 0.0


def resident_mib(field: str = "VmRSS") -> float:
    """Resident memory now, or the peak (`VmHWM`) since the last reset."""
    lines = (_SELF / "status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def settle() -> None:
    """Give freed memory back to the system, so that what follows cannot use it unseen."""
    gc.collect()
    pa.default_memory_pool().release_unused()
    ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def peak_above(base: float) -> Iterator[Peak]:
    """Measure the block's peak above `base` MiB."""
    gc.collect()
    (_SELF / "clear_refs").write_text(_RESET_HIGH_WATER_MARK)
    peak = Peak()
    yield peak
    peak.mib = resident_mib("VmHWM") - base
