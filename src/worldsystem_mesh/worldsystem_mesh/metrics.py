# SPDX-License-Identifier: Apache-2.0
"""How the mesher is, over HTTP: `/metrics` for Prometheus and `/health` for whoever watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from worldsystem_core.status_server import Health, StatusServer, StatusSettings
from worldsystem_mesh.config import MeshConfig

_PREFIX = "worldsystem_mesh_"
_COUNTERS = ("stream_bytes", "stream_messages", "evicted_keyframes", "empty_keyframes")
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


def metrics_server(
    config: MeshConfig, facts: Callable[[], Facts], problem: Callable[[], str]
) -> StatusServer:
    """Serves what the mesher tells of itself; see `StatusServer`."""
    settings = StatusSettings(
        host=config.metrics_host,
        port=config.metrics_port,
        token_file=config.metrics_token_file,
        tls_certificate=config.metrics_tls_certificate,
        tls_key=config.metrics_tls_key,
        setting="mesher.metrics_port",
    )

    def health() -> Health:
        wrong = problem()
        return Health(not wrong, {"status": wrong or "ok"} | dict(facts()))

    return StatusServer(settings, lambda: exposition(facts()), health)
