# SPDX-License-Identifier: Apache-2.0
"""How a node is, over HTTP: `/metrics` for Prometheus and `/health` for whoever watches."""

from __future__ import annotations

import errno
import json
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

from worldsystem_core.access import Access, given_token, tls_context
from worldsystem_core.bounded_http import BoundedServer
from worldsystem_core.errors import ConfigError

log = logging.getLogger(__name__)

_CONNECTION_TIMEOUT_S = 5.0
_STOP_S = 2.0
_NOT_TO_BE_HAD = (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL)
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, kw_only=True)
class StatusSettings:
    """Where to listen (port 0: any free one), who may look; `setting` is the port's parameter."""

    host: str = "127.0.0.1"
    port: int = 0
    token_file: str = ""
    tls_certificate: str = ""
    tls_key: str = ""
    setting: str = "port"


@dataclass(frozen=True)
class Health:
    """Whether all is well, and the whole account of it as `/health` gives it."""

    well: bool
    account: Mapping[str, object]


class StatusServer:
    """Serves from a thread of its own; with tokens only who has one sees more than ok or degraded.

    `metrics` and `health` are called in threads of the server. A port that is taken is no reason
    not to work: it is logged, and `port` is 0 then. Raises `ConfigError` for a host that is no
    address, and for tokens and certificates that cannot be used.
    """

    def __init__(
        self,
        settings: StatusSettings,
        metrics: Callable[[], bytes],
        health: Callable[[], Health],
    ) -> None:
        self.port = 0
        self._server: BoundedServer | None = None
        try:
            access, tls = Access(settings), tls_context(settings)
        except ConfigError as error:
            raise ConfigError(f"{settings.setting}: {error}") from error
        try:
            self._server = _bound(settings, _handler(access, metrics, health), tls)
        except socket.gaierror as error:
            raise ConfigError(
                f"{settings.setting}: '{settings.host}' is no address of this machine "
                f"({error.strerror}); take 127.0.0.1, or 0.0.0.0 for every network"
            ) from error
        except OSError as error:
            if error.errno not in _NOT_TO_BE_HAD:
                raise
            log.warning(
                "no metrics: port %d is not to be had (%s); set %s",
                settings.port,
                error.strerror,
                settings.setting,
            )
            return
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="status_http", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join(_STOP_S)
            self._server = None


def _bound(
    settings: StatusSettings,
    handler: type[BaseHTTPRequestHandler],
    tls: ssl.SSLContext | None,
) -> BoundedServer:
    server = BoundedServer((settings.host, settings.port), handler)
    if tls is not None:  # each connection shakes hands in its own thread, within its own time
        server.socket = tls.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    return server


def _handler(
    access: Access, metrics: Callable[[], bytes], health: Callable[[], Health]
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _CONNECTION_TIMEOUT_S

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics" and not self._known():
                self._answer(401, "text/plain", b"a token is needed\n")
            elif path == "/metrics":
                self._answer(200, _METRICS_TYPE, metrics())
            elif path == "/health":
                self._answer_health(health())
            else:
                self._answer(404, "text/plain", b"known: /metrics, /health\n")

        def _answer_health(self, found: Health) -> None:
            status = {"status": "ok" if found.well else "degraded"}
            shown = status | dict(found.account) if self._known() else status
            body = json.dumps(shown, default=str).encode()
            self._answer(200 if found.well else 503, "application/json", body)

        def _known(self) -> bool:
            return not access.restricted or access.knows(self._token())

        def _token(self) -> str:
            try:
                query = parse_qs(urlsplit(self.path).query)
            except ValueError:  # not an address
                return ""
            asked = query.get("token", [""])[0]
            header = self.headers.get("Authorization", "")  # read as Latin-1, sent as UTF-8
            return given_token(header.encode("latin-1", "replace").decode(errors="replace"), asked)

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            if status == 401:
                self.send_header("WWW-Authenticate", "Bearer")
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: what is asked for may hold a token."""

    return Handler
