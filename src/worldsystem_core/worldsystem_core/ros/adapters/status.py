# SPDX-License-Identifier: Apache-2.0
"""The frame ledger on the wire."""

from __future__ import annotations

from worldsystem_msgs.msg import FrameLedger

from worldsystem_core.latency import BUCKETS_S
from worldsystem_core.ledger import LedgerState, StageReport
from worldsystem_core.ros.adapters.messages import MessageAdapter, nanoseconds, time_message


def _frame_ledger(item: StageReport) -> list[FrameLedger]:
    state = item.ledger
    message = FrameLedger(
        stage=state.stage,
        taken=state.taken,
        used=state.used,
        reasons=list(state.dropped),
        dropped=list(state.dropped.values()),
        violations=item.violations,
        latency_buckets_s=list(BUCKETS_S),
        latency_counts=list(item.latency_counts),
    )
    message.header.stamp = time_message(item.stamp_ns)
    return [message]


def _stage_report(message: FrameLedger) -> StageReport:
    dropped = dict(zip(message.reasons, (int(n) for n in message.dropped), strict=True))
    return StageReport(
        stamp_ns=nanoseconds(message.header.stamp),
        ledger=LedgerState(message.stage, message.taken, message.used, dropped),
        violations=message.violations,
        latency_counts=tuple(int(n) for n in message.latency_counts),
    )


LEDGER = MessageAdapter(FrameLedger, _frame_ledger, _stage_report)
