# SPDX-License-Identifier: Apache-2.0
"""The whole system in the Prometheus text format."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from worldsystem.watch.state import NodeState, problems
from worldsystem_core.latency import BUCKETS_S

_Value = Callable[[NodeState], float]
_GAUGES: tuple[tuple[str, str, _Value], ...] = (
    ("worldsystem_up", "1 while the node is heard", lambda n: n.state != "silent"),
    ("worldsystem_degraded", "1 while the node tells of a problem", lambda n: bool(n.problem)),
    ("worldsystem_rate_hz", "frames used in a second", lambda n: n.rate_hz),
    (
        "worldsystem_frames_in_flight",
        "frames taken and not settled",
        lambda n: n.taken - n.used - sum(n.dropped.values()),
    ),
    ("worldsystem_queue_size", "objects waiting in the node's inboxes", lambda n: n.queue),
    (
        "worldsystem_process_memory_bytes",
        "resident memory of the node's process",
        lambda n: n.memory_mb * 1e6,
    ),
    (
        "worldsystem_process_allocated_bytes",
        "what the C library of the node's process has handed out",
        lambda n: n.allocated_mb * 1e6,
    ),
)
_COUNTERS: tuple[tuple[str, str, _Value], ...] = (
    ("worldsystem_frames_taken", "frames taken", lambda n: n.taken),
    ("worldsystem_frames_used", "frames used", lambda n: n.used),
    ("worldsystem_ledger_violations", "faults in the account itself", lambda n: n.violations),
    (
        "worldsystem_node_restarts",
        "times the node came back as another process",
        lambda n: n.restarts,
    ),
    ("worldsystem_process_cpu_seconds", "CPU time of the node's process", lambda n: n.cpu_s),
    ("worldsystem_thread_cpu_seconds", "CPU time of the node's threads", lambda n: n.thread_cpu_s),
)


def exposition(nodes: list[NodeState]) -> bytes:
    """The text that Prometheus scrapes; the label `stage` names the node or its further ledger."""
    registry = CollectorRegistry()
    registry.register(_Nodes(nodes))
    return generate_latest(registry)


class _Nodes(Collector):
    def __init__(self, nodes: list[NodeState]) -> None:
        self._nodes = nodes

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "worldsystem_healthy", "1 when nothing is wrong", value=float(not problems(self._nodes))
        )
        for name, meaning, value_of in _GAUGES:
            gauge = GaugeMetricFamily(name, meaning, labels=["stage"])
            for node in self._nodes:
                gauge.add_metric([node.name], float(value_of(node)))
            yield gauge
        for name, meaning, value_of in _COUNTERS:
            counter = CounterMetricFamily(name, meaning, labels=["stage"])
            for node in self._nodes:
                counter.add_metric([node.name], float(value_of(node)))
            yield counter
        yield self._facts()
        yield self._drops()
        yield self._latencies()

    def _facts(self) -> Metric:
        facts = GaugeMetricFamily(
            "worldsystem_node_fact", "what the node tells of itself", labels=["stage", "fact"]
        )
        for node in self._nodes:
            for fact, value in node.facts.items():
                facts.add_metric([node.name, fact], value)
        return facts

    def _drops(self) -> Metric:
        drops = CounterMetricFamily(
            "worldsystem_frames_dropped", "frames let go", labels=["stage", "reason"]
        )
        for node in self._nodes:
            for reason, count in node.dropped.items():
                drops.add_metric([node.name, reason], float(count))
        return drops

    def _latencies(self) -> Metric:
        family = HistogramMetricFamily(
            "worldsystem_latency_seconds", "capture to the node's output", labels=["stage"]
        )
        edges = [*(f"{edge:.6g}" for edge in BUCKETS_S), "+Inf"]
        for node in self._nodes:
            if len(node.latency_counts) == len(edges) and any(node.latency_counts):
                sums = [float(n) for n in np.cumsum(node.latency_counts)]
                family.add_metric([node.name], list(zip(edges, sums, strict=True)), None)
        return family
