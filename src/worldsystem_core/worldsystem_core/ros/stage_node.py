# SPDX-License-Identifier: Apache-2.0
"""What every stage's node is: settings, by-reference topics, a ledger, and an orderly end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from worldsystem_core.config import Config
from worldsystem_core.latency import LatencyHistogram
from worldsystem_core.ledger import StageLedger, StageReport
from worldsystem_core.ros import topics
from worldsystem_core.ros.adapters.messages import time_message
from worldsystem_core.ros.parameters import declare_config
from worldsystem_core.ros.reference_topic import (
    BytesSubscription,
    ReferencePublisher,
    ReferenceSubscription,
    Topic,
)

T = TypeVar("T")
C = TypeVar("C", bound=Config)

_REPORT_PERIOD_S = 1.0
_PLAUSIBLE_LATENCY_S = 3600.0


class StageNode(Node):
    """A node that talks through by-reference topics and accounts for each frame.

    Whoever runs it calls `input_ended` once everything before it has ended and its inboxes are
    empty, then `close`. `niceness` says how readily its thread yields to the others: what frames
    wait for goes first.
    """

    niceness = 0

    def __init__(self, name: str, config_type: type[C], **kwargs: Any) -> None:
        super().__init__(name, automatically_declare_parameters_from_overrides=True, **kwargs)
        self.config = declare_config(self, config_type)
        self.ledger = StageLedger(name)
        self.latency = LatencyHistogram()
        self._further_ledgers: list[StageLedger] = []
        self._links: list[Any] = []
        self._ledger_out = self.advertise(topics.LEDGER)
        self._diagnostics_out = self.advertise(topics.DIAGNOSTICS)
        self.create_timer(_REPORT_PERIOD_S, self.report)

    def create_timer(
        self, timer_period_sec: float, callback: Any, *arguments: Any, **keywords: Any
    ) -> Any:
        """A timer of the machine's own clock, unless another is given.

        With `use_sim_time` a node's clock stands still before a replay begins and after it ends.
        """
        if len(arguments) < 2:
            keywords.setdefault("clock", Clock(clock_type=ClockType.STEADY_TIME))
        return super().create_timer(timer_period_sec, callback, *arguments, **keywords)

    def advertise(self, topic: Topic[T], *, outside: bool = True) -> ReferencePublisher[T]:
        """A publisher of `topic` that `close` destroys."""
        publisher = ReferencePublisher(self, topic, outside=outside)
        self._links.append(publisher)
        return publisher

    def listen(
        self,
        topic: Topic[T],
        callback: Callable[[T], None],
        on_drop: Callable[[T], None] | None = None,
        *,
        depth: int = 0,
    ) -> None:
        """Call `callback` with each object of `topic`, and `on_drop` with those let go.

        `depth` objects may wait (0: as the topic's quality of service says).
        """
        link = ReferenceSubscription(self, topic, callback, on_drop, depth)
        self._links.append(link)

    def listen_bytes(
        self,
        topic: Topic[Any],
        callback: Callable[[bytes], None],
        *,
        wanted: Callable[[], bool] = lambda: True,
        on_drop: Callable[[Any], None] | None = None,
        depth: int = 0,
    ) -> None:
        """Call `callback` with the CDR bytes of each message of `topic` while `wanted()`.

        `depth` messages may wait (0: as the topic's quality of service says).
        """
        link = BytesSubscription(self, topic, callback, wanted=wanted, on_drop=on_drop, depth=depth)
        self._links.append(link)

    def further_ledger(self, name: str) -> StageLedger:
        """One more account of this stage, reported as `<stage>/<name>`; safe from any thread."""
        ledger = StageLedger(f"{self.ledger.stage}/{name}")
        self._further_ledgers.append(ledger)
        return ledger

    def all_ledgers(self) -> list[StageLedger]:
        """This stage's account, and then its further ones."""
        return [self.ledger, *self._further_ledgers]

    def measure_latency(self, capture_ns: int) -> None:
        """Count the time from capture to now; stamps that are not wall-clock time are left out."""
        age_s = (time.time_ns() - capture_ns) / 1e9
        if abs(age_s) < _PLAUSIBLE_LATENCY_S:
            self.latency.add(age_s)

    def facts(self) -> dict[str, object]:
        """What `/diagnostics` says of this stage beside its ledger."""
        return {}

    def problem(self) -> str:
        """What is wrong now, in words; empty while all is well."""
        return ""

    def report(self) -> None:
        """Publish the ledger and the diagnostics."""
        none = tuple(LatencyHistogram().counts())
        for ledger in self.all_ledgers():
            own = ledger is self.ledger
            self._publish_ledger(ledger, tuple(self.latency.counts()) if own else none)
        self._diagnostics_out.publish(self._diagnostics())

    def _publish_ledger(self, ledger: StageLedger, latency_counts: tuple[int, ...]) -> None:
        self._ledger_out.publish(
            StageReport(
                stamp_ns=time.time_ns(),
                ledger=ledger.state(),
                violations=ledger.violations,
                latency_counts=latency_counts,
            )
        )

    def _diagnostics(self) -> DiagnosticArray:
        state, problem = self.ledger.state(), self.problem()
        facts = {"taken": state.taken, "used": state.used, **self.facts()}
        facts |= {f"dropped.{reason}": count for reason, count in state.dropped.items()}
        status = DiagnosticStatus(
            level=DiagnosticStatus.WARN if problem else DiagnosticStatus.OK,
            name=f"worldsystem: {self.get_name()}",
            message=problem or "running",
            values=[KeyValue(key=key, value=str(value)) for key, value in facts.items()],
        )
        array = DiagnosticArray(status=[status])
        array.header.stamp = time_message(time.time_ns())
        return array

    @property
    def idle(self) -> bool:
        """Every inbox is empty and nothing is being worked on."""
        return all(getattr(link, "idle", True) for link in self._links)

    def input_ended(self) -> None:
        """Everything before this stage has ended: publish what is still held back."""

    def close(self) -> None:
        """Leave all topics and destroy the node."""
        for link in self._links:
            link.destroy()
        self._links.clear()
        self.destroy_node()
