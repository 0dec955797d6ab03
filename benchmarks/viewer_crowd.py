# SPDX-License-Identifier: Apache-2.0
"""Many pages that take what they are sent and look at none of it: `viewer_crowd.py PORT COUNT`
watches until a line comes.

Pages are on other machines. Here they share the server's processors, so they are one thread that
lets the kernel throw away what came (`MSG_TRUNC`), and answers nothing but that it is alive.
"""

from __future__ import annotations

import os
import selectors
import socket
import sys
import time
from contextlib import suppress

_CHUNK = 1 << 22
_PERIOD_S = 0.02  # a page is drawn no more often
_ALIVE_S = 5.0
_TIMEOUT_S = 10.0
_HELLO = b"{}"


def watch(port: int, count: int) -> int:
    """Bytes that so many pages were sent; says `connected` when all are let in."""
    pages = [_connected(port) for _ in range(count)]
    print("connected", flush=True)
    selector = selectors.DefaultSelector()
    for page in pages:
        page.setblocking(False)
        selector.register(page, selectors.EVENT_READ)
    scrap, taken = bytearray(_CHUNK), 0
    selector.register(sys.stdin, selectors.EVENT_READ)
    alive_s = time.monotonic() + _ALIVE_S
    while True:
        for key, _ in selector.select(_PERIOD_S):
            if not isinstance(key.fileobj, socket.socket):
                if len(pages) < count:
                    raise ConnectionError(f"{count - len(pages)} of {count} pages were shut out")
                return taken
            size = _taken(key.fileobj, scrap)
            taken += size
            if not size:
                selector.unregister(key.fileobj)
                pages.remove(key.fileobj)
        if time.monotonic() >= alive_s:
            alive_s += _ALIVE_S
            for page in pages:
                with suppress(ConnectionError):  # what comes from it says so
                    page.send(_frame(0x0A, b""))
        time.sleep(_PERIOD_S)


def _taken(page: socket.socket, scrap: bytearray) -> int:
    """Bytes thrown away; 0 when the server has ended."""
    try:
        return page.recv_into(scrap, _CHUNK, socket.MSG_TRUNC)
    except ConnectionError:
        return 0


def _connected(port: int) -> socket.socket:
    page = socket.create_connection(("127.0.0.1", port), _TIMEOUT_S)
    page.sendall(
        b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: d29ybGRzeXN0ZW1zeXN0ZQ==\r\n\r\n"
    )
    answer = b""
    while b"\r\n\r\n" not in answer:
        part = page.recv(4096)
        if not part:
            raise ConnectionError(f"not let in: {answer[:80]!r}")
        answer += part
    if b" 101 " not in answer[:20]:
        raise ConnectionError(f"not let in: {answer[:80]!r}")
    page.sendall(_frame(0x01, _HELLO))
    return page


def _frame(opcode: int, payload: bytes) -> bytes:
    """A short masked WebSocket frame."""
    mask = os.urandom(4)
    body = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + mask + body


def main() -> None:
    """Watch until a line comes, and say how many bytes came."""
    print(watch(int(sys.argv[1]), int(sys.argv[2])), flush=True)


if __name__ == "__main__":
    main()
