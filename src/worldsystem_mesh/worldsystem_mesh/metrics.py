# SPDX-License-Identifier: Apache-2.0
"""How the mesher is, over HTTP: `/metrics` for Prometheus and `/health` for whoever watches."""

from __future__ import annotations

import errno
import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from worldsystem_core.bounded_http import BoundedServer

log = logging.getLogger(__name__)
_PREFIX = "worldsystem_mesh_"
_COUNTERS = ("stream_bytes", "stream_messages", "evicted_keyframes", "empty_keyframes")
_CONNECTION_TIMEOUT_S = 5.0
_STOP_S = 2.0
Facts = Mapping[str, object]


def exposition(facts: Facts) -> bytes:
    """Prometheus' text for every number among `facts`; words become labels of `_info`."""
    registry = CollectorRegistry()
    registry.register(_FactsCollector(facts))
    return generate_latest(registry)


class _FactsCollector(Collector):
    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def collect(self) -> Iterator[Metric]:
        words = {k: str(v) for k, v in self._facts.items() if isinstance(v, str)}
        info = GaugeMetricFamily(f"{_PREFIX}info", "what is set", labels=list(words))
        info.add_metric(list(words.values()), 1.0)
        yield info
        for name, value in self._facts.items():
            if not isinstance(value, int | float):
                continue
            family = CounterMetricFamily if name in _COUNTERS else GaugeMetricFamily
            yield family(_PREFIX + name, name.replace("_", " "), value=float(value))


class MetricsServer:
    """Serves on `host:port` (0: any free port) from a thread of its own.

    A port that is taken is no reason not to map: it is logged, and `port` is 0 then.
    """

    def __init__(
        self, host: str, port: int, facts: Callable[[], Facts], problem: Callable[[], str]
    ) -> None:
        self.port = 0
        self._server: BoundedServer | None = None
        handler = _handler(facts, problem)
        try:
            self._server = BoundedServer((host, port), handler)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL):
                raise
            log.warning(
                "no metrics: port %d is not to be had (%s); set metrics_port", port, error.strerror
            )
            return
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="mesh_metrics", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join(_STOP_S)
            self._server = None


def _handler(
    facts: Callable[[], Facts], problem: Callable[[], str]
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _CONNECTION_TIMEOUT_S

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            if path == "/metrics":
                self._answer(200, "text/plain; version=0.0.4; charset=utf-8", exposition(facts()))
            elif path == "/health":
                wrong = problem()
                state = {"status": wrong or "ok"} | dict(facts())
                body = json.dumps(state, default=str).encode()
                self._answer(503 if wrong else 200, "application/json", body)
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
