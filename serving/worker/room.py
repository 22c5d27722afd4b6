"""Bytes of prompts in flight at the front, bounded for each stream and for all of them together."""

from __future__ import annotations

import threading


class Room:
    """What all streams of the front share.

    Parameters
    ----------
    limit : int
        Bytes in flight of all streams, beyond which only streams without any may send.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.bytes = limit, 0
        self.changed = threading.Condition()


class Share:
    """One stream's part of the room, bounded by `limit` bytes itself."""

    def __init__(self, room: Room, limit: int) -> None:
        self._room, self._limit = room, limit
        self._bytes = 0
        self._closed = False

    def wait(self) -> None:
        """Block while too much is in flight: the sender's flow control then stops the client.

        A stream that has nothing in flight never waits, so that every stream goes on.
        """
        room = self._room
        with room.changed:
            room.changed.wait_for(lambda: not self._bytes or (self._bytes < self._limit and room.bytes < room.limit))

    def take(self, size: int) -> None:
        with self._room.changed:
            self._add(size)

    def free(self, size: int) -> None:
        with self._room.changed:
            self._add(-size)

    def close(self) -> None:
        """Give everything back."""
        with self._room.changed:
            self._add(-self._bytes)
            self._closed = True

    def _add(self, size: int) -> None:
        if not self._closed:
            self._bytes += size
            self._room.bytes += size
            self._room.changed.notify_all()
