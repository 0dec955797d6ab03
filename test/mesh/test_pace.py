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
        pace.note_busy(6.0, work_ms, 4.0 + drawing_ms, 4.0 / (4.0 + drawing_ms))
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
        pace.note_busy(1.0, 1000.0, 1000.0, 0.0)
    assert pace.budget_s() > 0.0


def test_updates_that_become_slower_while_work_waits_leave_it_its_share():
    """As on a map that grows, where the first correction is never worked off whole."""
    pace = Pace(0.6)
    pace.note_usual(5.0, 5.0)
    whole_ms = []
    for _ in range(60):
        work_ms = 1e3 * pace.budget_s()
        extract_ms = 40.0 + 0.5 * work_ms
        pace.note_busy(5.0, work_ms, extract_ms, 40.0 / extract_ms)
        whole_ms.append(5.0 + work_ms + extract_ms)
    assert pace.budget_s() > 0.005
    assert max(whole_ms[20:]) < 2.0 * 45.0


def test_how_slow_the_first_update_was_is_forgotten_while_work_waits():
    """It loaded the kernels."""
    pace = Pace(0.6)
    pace.note_usual(2000.0, 500.0)
    for _ in range(40):
        pace.note_busy(6.0, 1e3 * pace.budget_s(), 4.0, 1.0)
    assert 1e3 * pace.budget_s() <= 1.3 * 0.6 * 10.0


def test_what_a_new_keyframe_changes_is_an_updates_own_share(
    make_mesher, plane_keyframes, monkeypatch
):
    mesher = make_mesher(min_weight=0.5)
    keyframes = plane_keyframes(9)
    for keyframe in keyframes[:8]:
        mesher.integrate(keyframe)
        mesher.extract(0)
    poses = {k.id: k.world_from_cam.copy() for k in keyframes[:8]}
    for pose in poses.values():
        pose[:3, 3] += (0.3, -0.2, 0.1)
    mesher.move(poses)
    told = []
    monkeypatch.setattr(mesher._pace, "budget_s", lambda: 1e-4)
    monkeypatch.setattr(mesher._pace, "note_busy", lambda *times: told.append(times))
    mesher.integrate(keyframes[8])
    mesher.extract(1)
    mesher.extract(2)
    assert not mesher.is_settled
    (_, _, _, with_new), (_, _, _, without) = told
    assert 0.0 < with_new <= 1.0
    assert without == 0.0
