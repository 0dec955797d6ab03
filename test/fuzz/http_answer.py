# SPDX-License-Identifier: Apache-2.0
"""A server that has one answer to every request of `urllib`, without a network."""

from __future__ import annotations

import contextlib
import http.client
import io
import urllib.request
from collections.abc import Iterator
from unittest import mock

URL = "http://service.example/ask"
_HTTP_ALONE = (
    urllib.request.HTTPHandler,
    urllib.request.HTTPDefaultErrorHandler,
    urllib.request.HTTPRedirectHandler,
    urllib.request.HTTPErrorProcessor,
)


class _Connection:
    """What `http.client` needs of a socket."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def sendall(self, data: object) -> None:
        """Whatever is asked, the answer is the same."""

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._answer)

    def close(self) -> None:
        """Nothing is open."""


@contextlib.contextmanager
def every_server_answers(data: bytes) -> Iterator[None]:
    """Inside, every HTTP request is answered with `data`, be it an answer or not."""

    def connect(connection: http.client.HTTPConnection) -> None:
        connection.sock = _Connection(data)  # type: ignore[assignment]

    opener = urllib.request.OpenerDirector()
    for kind in _HTTP_ALONE:
        opener.add_handler(kind())
    with (
        mock.patch.object(http.client.HTTPConnection, "connect", connect),
        mock.patch.object(urllib.request, "_opener", opener),
    ):
        yield
