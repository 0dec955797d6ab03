# SPDX-License-Identifier: Apache-2.0
"""Which runs go when room or age says so: the oldest first, never the newest."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta

from worldsystem.catalogue.runs import Run


def to_prune(
    runs: list[Run],
    *,
    older_than_days: float | None = None,
    larger_than_gb: float | None = None,
    now: datetime | None = None,
) -> list[Run]:
    """The runs to remove, oldest first; `runs` are newest first, and the newest always stays.

    All that are older than so many days, and then the oldest until what stays is at most so large.
    """
    now = now or datetime.now(UTC)
    going: list[Run] = []
    staying = list(runs)
    if older_than_days is not None:
        limit = now - timedelta(days=older_than_days)
        going = [run for run in staying[1:] if run.started < limit]
        staying = [run for run in staying if run not in going]
    if larger_than_gb is not None:
        while len(staying) > 1 and sum(run.size_bytes for run in staying) > larger_than_gb * 1e9:
            going.append(staying.pop())
    return sorted(going, key=lambda run: run.started)


def remove(runs: list[Run]) -> int:
    """Delete the runs' folders; bytes that were freed."""
    for run in runs:
        shutil.rmtree(run.folder)
    return sum(run.size_bytes for run in runs)
