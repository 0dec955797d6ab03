# SPDX-License-Identifier: Apache-2.0
"""Messages over a pair of connected sockets of this machine, arrays without a copy in between."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from typing import Any

import numpy as np

from worldsystem_core.errors import WorldSystemError
from worldsystem_slam3r.apart.codec import pack, unpack

_COUNT = struct.Struct("<I")
_MOST_BUFFERS = 4096
_MOST_BYTES = 1 << 32
# what msgpack, numpy and the classes say of bytes that `pack` did not make
_NOT_OURS = (
    *(ArithmeticError, LookupError, RecursionError, TypeError, ValueError),
    WorldSystemError,
)


class ChannelClosed(Exception):
    """The other side is gone."""


class Channel:
    """Sends and receives (kind, item); one thread may receive, any may send.

    A side that takes nothing for `patience_s` (0: no limit) counts as gone.
    """

    def __init__(self, end: socket.socket, patience_s: float = 0.0) -> None:
        self._end = end
        limit = struct.pack("ll", int(patience_s), round(1e6 * (patience_s % 1.0)))
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        self._sending = threading.Lock()

    def send(self, kind: str, item: Any = None) -> None:
        """Give `item` to the other side; `ChannelClosed` when that is gone."""
        header, *buffers = pack([kind, item])
        sizes = np.array([len(header), *(len(buffer) for buffer in buffers)], dtype="<u8")
        try:
            with self._sending:
                self._end.sendall(_COUNT.pack(len(sizes)) + sizes.tobytes() + bytes(header))
                for buffer in buffers:
                    self._end.sendall(buffer)
        except OSError as error:
            raise ChannelClosed(str(error)) from error

    def receive(self) -> tuple[str, Any]:
        """The next message, however long it takes; `ChannelClosed` when no other will come."""
        (count,) = _COUNT.unpack(self._exactly(_COUNT.size))
        if not 0 < count <= _MOST_BUFFERS:
            raise ChannelClosed(f"a message of {count} parts cannot be ours")
        sizes = np.frombuffer(self._exactly(8 * count), dtype="<u8").tolist()
        if sum(sizes) > _MOST_BYTES:
            raise ChannelClosed(f"a message of {sum(sizes)} bytes cannot be ours")
        header, *buffers = [self._exactly(size) for size in sizes]
        try:
            kind, item = unpack(header, buffers)
            if not isinstance(kind, str):
                raise TypeError(f"its kind is {kind!r:.80}")
        except _NOT_OURS as error:
            raise ChannelClosed(f"a message that cannot be ours: {error}") from error
        return kind, item

    def _exactly(self, size: int) -> memoryview:
        found = np.empty(size, np.uint8).data if size else memoryview(b"")
        at = 0
        while at < size:
            try:
                count = self._end.recv_into(found[at:])
            except OSError as error:
                raise ChannelClosed(str(error)) from error
            if not count:
                raise ChannelClosed("the other side has ended")
            at += count
        return found

    def close(self) -> None:
        """Wake whoever receives here, and have the other side know."""
        with suppress(OSError):  # the other side may have closed it
            self._end.shutdown(socket.SHUT_RDWR)
        self._end.close()
