"""Frames between front and replica: JSON head and Arrow body over a socket pair. Nothing is pickled."""

from __future__ import annotations

import json
import socket
import struct
import threading
from typing import Any

import pyarrow as pa

_LENGTHS = struct.Struct("<IQ")


class Channel:
    """One end of the socket pair. Any thread may send; one thread receives."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._send_lock = threading.Lock()

    def send(self, head: dict[str, Any], batch: pa.RecordBatch | None = None) -> None:
        """Send one frame; raises OSError when the other end is gone."""
        text = json.dumps(head).encode()
        body = memoryview(batch.serialize()) if batch is not None else memoryview(b"")
        with self._send_lock:
            self._socket.sendall(_LENGTHS.pack(len(text), body.nbytes) + text)
            self._socket.sendall(body)

    def receive(self) -> tuple[dict[str, Any], pa.Buffer] | None:
        """The next frame, or None when the other end is gone."""
        try:
            lengths = self._read(_LENGTHS.size)
            head_bytes, body_bytes = _LENGTHS.unpack(lengths)
            return json.loads(self._read(head_bytes)), pa.py_buffer(self._read(body_bytes))
        except (EOFError, OSError):
            return None

    def _read(self, length: int) -> bytearray:
        data = bytearray(length)
        view = memoryview(data)
        while view:
            count = self._socket.recv_into(view)
            if count == 0:
                raise EOFError
            view = view[count:]
        return data

    def close(self) -> None:
        """Close both directions; a blocked `receive` returns None."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:  # the other end closed first
            return
        finally:
            self._socket.close()
