# SPDX-License-Identifier: Apache-2.0
"""A line to a server that can be cut, held, mended, and made slow."""

from __future__ import annotations

import contextlib
import socket
import threading
import time


class Cable:
    """Passes connections to its `port` on to another; `bytes_per_s` is for each (0: no limit)."""

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._whole = True
        self._flows = threading.Event()
        self._flows.set()
        self._ended = False
        self._sockets: set[socket.socket] = set()
        self.bytes_per_s = 0
        self.port = int(self._listener.getsockname()[1])

    def __enter__(self) -> Cable:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._flows.set()
        self._ended = True
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """End every connection and refuse new ones."""
        self._whole = False
        for each in list(self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._sockets.clear()

    def hold(self) -> None:
        """Pass nothing on and close nothing, as a line that dies without a word."""
        self._flows.clear()

    def mend(self) -> None:
        self._whole = True
        self._flows.set()

    def _accept(self) -> None:
        while not self._ended:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if not self._whole:
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self._to_port))
            # small buffers: the server shall notice that nothing is taken
            far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32_768)
            self._sockets |= {near, far}
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(8192):
                self._flows.wait()
                sink.sendall(data)
                if self.bytes_per_s:
                    time.sleep(len(data) / self.bytes_per_s)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
