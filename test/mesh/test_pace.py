# SPDX-License-Identifier: Apache-2.0
"""How much an update does beside its own work."""

from __future__ import annotations

import pytest

from worldsystem_mesh.pace import Pace


def settled_extra_ms(drawing_per_work: float, share: float) -> float:
    """Extra time per update when each millisecond of work makes so many of drawing."""
    pace = Pace(share)
    for _ in range(20):
        pace.note_usual(6.0, 4.0)
    extra = []
    for _ in range(60):
        work_ms = 1e3 * pace.budget_s()
        drawing_ms = drawing_per_work * work_ms
        pace.note_busy(work_ms, 4.0 + drawing_ms)
        extra.append(work_ms + drawing_ms)
    return max(extra[20:])


@pytest.mark.parametrize("drawing_per_work", [0.0, 0.5, 3.0])
def test_extra_work_stays_within_its_share_whatever_it_makes_to_draw(drawing_per_work):
    assert settled_extra_ms(drawing_per_work, share=0.6) <= 1.3 * 0.6 * 10.0
    assert settled_extra_ms(drawing_per_work, share=0.6) >= 1.0


def test_work_goes_on_however_slow_it_is():
    pace = Pace(0.1)
    pace.note_usual(1.0, 1.0)
    for _ in range(20):
        pace.note_busy(1000.0, 1000.0)
    assert pace.budget_s() > 0.0
