# SPDX-License-Identifier: Apache-2.0
"""A page without a browser: connects, reads messages and keeps the world that they describe."""

from __future__ import annotations

import json
import time

import numpy as np
from websockets.sync.client import ClientConnection, connect

from worldsystem_core.surface import MeshAssembly
from worldsystem_viewer.mesh_message import apply_code, apply_update
from worldsystem_viewer.page_server import PageServer
from worldsystem_viewer.protocol import Hello, MeshCode, MeshUpdate, Message, PathUpdate, decode


class PageReader:
    """A synchronous client of the page's WebSocket."""

    def __init__(
        self,
        port: int,
        session: str = "",
        change: int = 0,
        origin: str | None = None,
        **wish: object,
    ) -> None:
        self._connecting = connect(
            f"ws://127.0.0.1:{port}/ws",
            compression=None,
            max_size=None,
            max_queue=1,
            origin=origin,
            proxy=None,
            close_timeout=0.2,
        )
        self.socket: ClientConnection = self._connecting.__enter__()
        self.socket.send(json.dumps({"session": session, "change": change, **wish}))
        self.assembly = MeshAssembly()
        self.path = np.zeros((0, 3), np.float32)
        self.newest: dict[type, Message] = {}
        self.counts: dict[type, int] = {}
        self.mesh_bytes = 0

    def close(self) -> None:
        self._connecting.__exit__(None, None, None)

    def tell(self, **wish: object) -> None:
        self.socket.send(json.dumps(wish))

    def hide(self, server: PageServer) -> None:
        """Return once the server knows that the page, which is its only one, is not looked at."""
        self.tell(visible=False)
        deadline = time.monotonic() + 10.0
        while any(talk._visible.is_set() for talk in list(server._clients._talks)):
            assert time.monotonic() < deadline, "the server was not told"
            time.sleep(0.01)

    def read_one(self, timeout_s: float = 5.0) -> Message:
        data = self.socket.recv(timeout_s)
        message = decode(data)
        self.newest[type(message)] = message
        self.counts[type(message)] = self.counts.get(type(message), 0) + 1
        if isinstance(message, MeshUpdate | MeshCode):
            self.mesh_bytes += len(data)
        if isinstance(message, MeshUpdate):
            apply_update(self.assembly, message)
        if isinstance(message, MeshCode):
            apply_code(self.assembly, message)
        if isinstance(message, PathUpdate):
            self.path = np.concatenate([self.path[: message.start], message.positions])
        return message

    def read_until(self, done, timeout_s: float = 10.0) -> None:
        """Read until `done(self)`; fails when that takes longer than `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while not done(self):
            left = deadline - time.monotonic()
            assert left > 0, f"not done within {timeout_s} s; got {self.counts}"
            self.read_one(left)

    @property
    def hello(self) -> Hello:
        return self.newest[Hello]
