# SPDX-License-Identifier: Apache-2.0
"""Which runs go when room or age says so: the oldest first, never the newest or one going on."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime

from worldsystem.catalogue.runs import Run


def to_prune(
    runs: list[Run],
    *,
    older_than_days: float | None = None,
    larger_than_gb: float | None = None,
    now: datetime | None = None,
) -> list[Run]:
    """The runs to remove, oldest first; `runs` are newest first.

    The newest always stays, and so does what is being recorded now.

    All that are older than so many days, and then the oldest until what stays is at most so large.
    """
    now = now or datetime.now(UTC)
    going: list[Run] = []
    staying = list(runs)
    if older_than_days is not None:
        limit_s = 86_400.0 * older_than_days  # in seconds: no calendar goes back so far as some ask
        going = [
            run
            for run in staying[1:]
            if (now - run.started).total_seconds() > limit_s and not run.going_on
        ]
        staying = [run for run in staying if run not in going]
    if larger_than_gb is not None:
        for run in reversed(staying[1:]):
            if run.going_on or _size_gb(staying) <= larger_than_gb:
                continue
            staying.remove(run)
            going.append(run)
    return sorted(going, key=lambda run: run.started)


def _size_gb(runs: list[Run]) -> float:
    return sum(run.size_bytes for run in runs) / 1e9


def remove(runs: list[Run]) -> tuple[int, list[str]]:
    """Delete the runs' folders; bytes that were freed, and why any of them is still there."""
    freed_bytes = 0
    reasons: list[str] = []
    for run in runs:
        try:
            shutil.rmtree(run.folder)
            freed_bytes += run.size_bytes
        except OSError as error:
            reasons.append(f"{error.filename or run.folder}: {error.strerror or error}")
    return freed_bytes, reasons
