# SPDX-License-Identifier: Apache-2.0
"""A small HTTP server that no number of slow or wrong clients can fill."""

from __future__ import annotations

import logging
import socket
import socketserver
import threading
from http.server import ThreadingHTTPServer
from typing import Any

log = logging.getLogger(__name__)

_CONNECTION_TIMEOUT_S = 5.0
_MOST_CONNECTIONS = 32


class BoundedServer(ThreadingHTTPServer):
    """Serves at most 32 connections at once, each for five seconds; others are closed at once."""

    daemon_threads = True
    request_queue_size = 128  # with the usual 5, a burst of strangers costs a friend seconds

    def __init__(self, *arguments: Any) -> None:  # as the base class takes them
        self._free = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        host = arguments[0][0]
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__(*arguments)

    def server_bind(self) -> None:
        """As the base class, which asks DNS for its own name, however long no server answers."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        watchdog = threading.Timer(_CONNECTION_TIMEOUT_S, _cut, [request])
        watchdog.daemon = True
        watchdog.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            watchdog.cancel()
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a request from %s broke off", client_address, exc_info=True)


def _cut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        log.debug("a slow connection had ended by itself")
