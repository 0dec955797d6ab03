# SPDX-License-Identifier: Apache-2.0
"""Each node's state from what it tells once a second. No ROS."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from worldsystem_core.latency import percentile_s
from worldsystem_core.ledger import StageReport

SILENT_AFTER_S = 4.0
_MOST_NODES = 256
_RATE_OVER_NS = 500_000_000
"""A rate is over at least that: a stage that is late may tell twice in a row."""
_OF_THE_PROCESS = ("process.", "thread.")


@dataclass(frozen=True, kw_only=True)
class NodeState:
    """One node at one moment; `state` is running, degraded or silent, `facts` what it tells of
    itself in numbers beside all the others here."""

    name: str
    state: str
    problem: str
    age_s: float
    rate_hz: float
    taken: int
    used: int
    dropped: dict[str, int]
    violations: int
    latency_counts: tuple[int, ...]
    queue: int
    pid: int
    memory_mb: float
    allocated_mb: float
    cpu_s: float
    thread_cpu_s: float
    restarts: int
    facts: dict[str, float] = field(default_factory=dict)

    @property
    def p50_ms(self) -> float:
        return 1e3 * percentile_s(self.latency_counts, 50.0)

    @property
    def p95_ms(self) -> float:
        return 1e3 * percentile_s(self.latency_counts, 95.0)


@dataclass
class _Heard:
    """What a node last said, and when."""

    heard_s: float = 0.0
    report: StageReport | None = None
    used_before: tuple[int, int] | None = None  # when [ns], by the node's clock, and how many
    rate_hz: float = 0.0
    warned: bool = False
    message: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    restarts: int = 0

    def take(self, report: StageReport) -> None:
        """Its newest account. The rate is by the node's own clock: one may wait on its way."""
        now_ns, used = report.stamp_ns, report.ledger.used
        since_ns, before = self.used_before or (now_ns, used)
        if now_ns - since_ns >= _RATE_OVER_NS:
            self.rate_hz = max(0, used - before) / ((now_ns - since_ns) * 1e-9)
        if not 0 < now_ns - since_ns < _RATE_OVER_NS:  # a clock may be set back
            self.used_before = (now_ns, used)
        self.report = report


class SystemState:
    """Keeps the newest account of every node; safe from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._nodes: dict[str, _Heard] = {}

    def report(self, report: StageReport) -> None:
        """A node's ledger; further ledgers (`stage/name`) are nodes of their own here."""
        with self._lock:
            heard = self._heard(report.ledger.stage, self._clock())
            if heard is not None:
                heard.take(report)

    def diagnostics(
        self, name: str, *, warned: bool, message: str, facts: Mapping[str, str]
    ) -> None:
        """What a node says of itself beside its ledger."""
        with self._lock:
            heard = self._heard(name, self._clock())
            if heard is None:
                return
            heard.restarts += _is_another(heard.facts, facts)
            heard.warned, heard.message, heard.facts = warned, message, dict(facts)

    def nodes(self) -> list[NodeState]:
        """Every node heard so far, by name."""
        now_s = self._clock()
        with self._lock:
            return [_state(name, heard, now_s) for name, heard in sorted(self._nodes.items())]

    def _heard(self, name: str, now_s: float) -> _Heard | None:
        if name not in self._nodes and len(self._nodes) >= _MOST_NODES:
            return None
        heard = self._nodes.setdefault(name, _Heard())
        heard.heard_s = now_s
        return heard


def _is_another(before: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Whether another process tells the facts; in a container each has the same number."""
    if "process.pid" not in before:
        return False
    worked_s, works_s = _number(before, "process.cpu_s"), _number(now, "process.cpu_s")
    return now.get("process.pid") != before["process.pid"] or works_s < worked_s


def problems(nodes: list[NodeState]) -> list[str]:
    """What is wrong, a sentence each; empty when the whole system is well."""
    if not nodes:
        return ["no node has been heard"]
    found = [f"{n.name}: silent for {n.age_s:.0f} s" for n in nodes if n.state == "silent"]
    found += [f"{n.name}: {n.problem}" for n in nodes if n.state == "degraded"]
    return found + [
        f"{n.name}: {n.violations} faults in its account" for n in nodes if n.violations
    ]


def _state(name: str, heard: _Heard, now_s: float) -> NodeState:
    age_s = now_s - heard.heard_s
    report, ledger = heard.report, heard.report.ledger if heard.report else None
    state = "degraded" if heard.warned else "running"
    return NodeState(
        name=name,
        state="silent" if age_s > SILENT_AFTER_S else state,
        problem=heard.message if heard.warned else "",
        age_s=age_s,
        rate_hz=heard.rate_hz if age_s <= SILENT_AFTER_S else 0.0,
        taken=ledger.taken if ledger else 0,
        used=ledger.used if ledger else 0,
        dropped=dict(ledger.dropped) if ledger else {},
        violations=report.violations if report else 0,
        latency_counts=report.latency_counts if report else (),
        queue=int(_number(heard.facts, "queue")),
        pid=int(_number(heard.facts, "process.pid")),
        memory_mb=_number(heard.facts, "process.memory_mb"),
        allocated_mb=_number(heard.facts, "process.allocated_mb"),
        cpu_s=_number(heard.facts, "process.cpu_s"),
        thread_cpu_s=_number(heard.facts, "thread.cpu_s"),
        restarts=heard.restarts,
        facts=_numbers(heard.facts),
    )


def _numbers(facts: Mapping[str, str]) -> dict[str, float]:
    """Those of the node's own facts that are finite numbers."""
    found = {}
    for key, text in sorted(facts.items()):
        if key == "queue" or key.startswith(_OF_THE_PROCESS):
            continue
        with suppress(ValueError):
            found[key] = float(text)
    return {key: value for key, value in found.items() if math.isfinite(value)}


def _number(facts: Mapping[str, str], key: str) -> float:
    """0 where there is no finite number."""
    with suppress(ValueError):
        value = float(facts.get(key, 0))
        return value if math.isfinite(value) else 0.0
    return 0.0
