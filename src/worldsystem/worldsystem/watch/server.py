# SPDX-License-Identifier: Apache-2.0
"""`/metrics` and `/health` of the whole system over HTTP."""

from __future__ import annotations

import errno
import json
import logging
import threading
from http.server import BaseHTTPRequestHandler

from worldsystem.watch.metrics import exposition
from worldsystem.watch.state import SystemState, problems
from worldsystem_core.bounded_http import BoundedServer

log = logging.getLogger(__name__)

_CONNECTION_TIMEOUT_S = 5.0
_STOP_S = 2.0
_NOT_TO_BE_HAD = (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL)


class WatchServer:
    """Serves from a thread of its own; a port that is taken is logged, and `port` is 0 then."""

    def __init__(self, host: str, port: int, state: SystemState) -> None:
        self.port = 0
        self._server: BoundedServer | None = None
        try:
            self._server = BoundedServer((host, port), _handler(state))
        except OSError as error:
            if error.errno not in _NOT_TO_BE_HAD:
                raise
            log.warning("no system metrics: port %d (%s); set monitor.port", port, error.strerror)
            return
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="watch_http", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join(_STOP_S)
            self._server = None


def health(state: SystemState) -> tuple[bool, dict[str, object]]:
    """Whether all is well, and the body of `/health`."""
    nodes = state.nodes()
    wrong = problems(nodes)
    each = {node.name: {"state": node.state, "problem": node.problem} for node in nodes}
    return not wrong, {"status": "degraded" if wrong else "ok", "problems": wrong, "nodes": each}


def _handler(state: SystemState) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _CONNECTION_TIMEOUT_S

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            if path == "/metrics":
                kind = "text/plain; version=0.0.4; charset=utf-8"
                self._answer(200, kind, exposition(state.nodes()))
            elif path == "/health":
                well, body = health(state)
                self._answer(200 if well else 503, "application/json", json.dumps(body).encode())
            else:
                self._answer(404, "text/plain", b"known: /metrics, /health\n")

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            log.debug(format, *args)

    return Handler
