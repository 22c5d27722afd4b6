"""Limits that hold for all processes of a user on this host: locks and a clock in files of a private folder."""

from __future__ import annotations

import fcntl
import os
import random
import struct
import time
from pathlib import Path

WINDOW_SECONDS = 60.0
MOST_AHEAD_SECONDS = 3600.0
BURST_SHARE = 0.1
"""Share of a minute's allowance that may be used at once; the rest is spread over the minute."""
_CLOCK = struct.Struct("<d")


class HostSlots:
    """At most `slots` holders at once on this host; a slot comes back when its holder ends, however it ends.

    A slot is an exclusive lock on one file. Holders with different numbers of slots share the lower ones.
    """

    def __init__(self, folder: Path, slots: int) -> None:
        self._folder, self._slots = folder, slots
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def acquire(self) -> int | None:
        """A free slot, to be given to `release`, or None."""
        first = random.randrange(self._slots)
        for i in range(self._slots):
            file = self._folder / f"slot-{(first + i) % self._slots}"
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
            else:
                return descriptor
        return None

    def release(self, slot: int) -> None:
        os.close(slot)


class HostRate:
    """At most `per_minute` units in any minute on this host; 0 allows all.

    Generic cell rate algorithm (ITU-T I.371, annex A): one number, the time at which the allowance is whole again,
    kept in a locked file. Burst and refill together stay within a minute's allowance.
    """

    def __init__(self, file: Path, per_minute: float) -> None:
        self._file, self._per_minute = file, per_minute
        self._rate = per_minute * (1 - BURST_SHARE) / WINDOW_SECONDS
        self._burst_seconds = per_minute * BURST_SHARE / self._rate if per_minute else 0.0

    def reserve(self, amount: float, now: float | None = None) -> float:
        """Take `amount` units if they are there and return 0, else the seconds until it pays to ask again."""
        return self._advance(amount, now, force=False)

    def correct(self, amount: float, now: float | None = None) -> None:
        """Take what was used beyond the reservation; give back what was not, where `amount` is negative."""
        self._advance(amount, now, force=True)

    def _advance(self, amount: float, now: float | None, *, force: bool) -> float:
        if not self._per_minute:
            return 0.0
        now = time.time() if now is None else now
        cost = amount / self._rate
        descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            raw = os.pread(descriptor, _CLOCK.size, 0)
            whole = _CLOCK.unpack(raw)[0] if len(raw) == _CLOCK.size else 0.0
            whole = max(now, whole) if whole < now + MOST_AHEAD_SECONDS else now  # the clock was set back
            # More than a burst can hold goes alone, when the allowance is whole.
            wait = whole + min(cost, self._burst_seconds) - self._burst_seconds - now
            if wait <= 1e-9 or force:
                os.pwrite(descriptor, _CLOCK.pack(whole + cost), 0)
                return 0.0
        finally:
            os.close(descriptor)
        return wait
