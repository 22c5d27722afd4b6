"""Leases keep the worker alive: one file per application, fresh while somebody touches it."""

from __future__ import annotations

import re
import time
from pathlib import Path


def file_name(application: str) -> str:
    """An application's id as the name of a file; the JVM makes the same."""
    return re.sub(r"[^\w.-]", "_", application) or "_"


def _file(folder: Path, application: str) -> Path:
    return folder / "leases" / file_name(application)


def touch(folder: Path, application: str) -> None:
    """Take or renew an application's lease; to hold it, touch it more often than every `idle_seconds`."""
    lease = _file(folder, application)
    lease.parent.mkdir(mode=0o700, exist_ok=True)
    lease.touch(mode=0o600)


def release(folder: Path, application: str) -> None:
    """Give the lease back: the application has ended."""
    _file(folder, application).unlink(missing_ok=True)


def youngest_age(folder: Path) -> float:
    """Seconds since the last touch of any lease; infinite without leases."""
    ages = [time.time() - mtime for mtime in _mtimes(folder).values()]
    return min(ages, default=float("inf"))


def remove_stale(folder: Path, older_than: float) -> None:
    """Remove leases that nobody touched for `older_than` seconds, and the folder once it is empty."""
    for lease, mtime in _mtimes(folder).items():
        if time.time() - mtime > older_than:
            lease.unlink(missing_ok=True)
    try:
        (folder / "leases").rmdir()
    except OSError:  # leases of others remain, or there never were any
        return


def _mtimes(folder: Path) -> dict[Path, float]:
    found = {}
    for lease in (folder / "leases").glob("*"):
        try:
            found[lease] = lease.stat().st_mtime
        except FileNotFoundError:  # released meanwhile
            continue
    return found
