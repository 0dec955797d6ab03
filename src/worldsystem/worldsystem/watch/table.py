# SPDX-License-Identifier: Apache-2.0
"""The nodes as a table for a terminal."""

from __future__ import annotations

import math

from worldsystem.watch.state import NodeState

_HEAD = ("node", "state", "rate", "used", "queue", "p50", "p95", "memory", "dropped")


def table(nodes: list[NodeState]) -> str:
    """One line a node: its state, rate [1/s], latency [ms], memory [MB] and drops by reason."""
    rows = [_HEAD, *(_row(node) for node in nodes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _row(node: NodeState) -> tuple[str, ...]:
    drops = ", ".join(f"{reason} {count}" for reason, count in sorted(node.dropped.items()))
    memory = f"{node.memory_mb:.0f} MB" if node.memory_mb else "–"
    return (
        node.name,
        node.state,
        f"{node.rate_hz:.1f}/s",
        str(node.used),
        str(node.queue),
        _milliseconds(node.p50_ms),
        _milliseconds(node.p95_ms),
        memory,
        drops or "–",
    )


def _milliseconds(value: float) -> str:
    return f"{value:.0f} ms" if math.isfinite(value) else "–"
