# SPDX-License-Identifier: Apache-2.0
"""A page without a browser, which keeps the surface that it is sent."""

from __future__ import annotations

import json
import threading

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from worldsystem_core.surface import MeshAssembly
from worldsystem_viewer.mesh_message import apply_code, apply_update
from worldsystem_viewer.protocol import Hello, MeshCode, MeshUpdate, decode


class Client:
    """One page in a thread of its own."""

    def __init__(self, port: int, **wish: object) -> None:
        self.surface = MeshAssembly()
        self.lock = threading.Lock()
        self.mesh_bytes = self.bytes = self.messages = 0
        self.session = ""
        self._port, self._wish = port, wish
        self.open()

    def open(self) -> None:
        """Connect, or connect again and go on from what it has."""
        self._stopping = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stopping = True
        self._thread.join(10.0)

    def _run(self) -> None:
        url = f"ws://127.0.0.1:{self._port}/ws"
        with connect(
            url, compression=None, max_size=None, max_queue=2, proxy=None, close_timeout=0.2
        ) as socket:
            greeting = {"session": self.session, "change": self.surface.sequence, **self._wish}
            socket.send(json.dumps(greeting))
            while not self._stopping:
                try:
                    self._take(socket.recv(0.2, decode=False))
                except TimeoutError:
                    continue
                except ConnectionClosed:
                    return

    def _take(self, data: bytes) -> None:
        self.bytes += len(data)
        self.messages += 1
        message = decode(data)
        if isinstance(message, Hello):
            self.session = message.session
            if not message.resumed:
                self.surface = MeshAssembly()
        elif isinstance(message, MeshUpdate | MeshCode):
            self.mesh_bytes += len(data)
            with self.lock:
                if isinstance(message, MeshUpdate):
                    apply_update(self.surface, message)
                else:
                    apply_code(self.surface, message)
