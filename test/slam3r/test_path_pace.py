# SPDX-License-Identifier: Apache-2.0
"""The path is told whole: what that costs does not grow with the length of the run."""

from __future__ import annotations

from itertools import pairwise

from worldsystem_slam3r.path_pace import POSES_PER_S, PathPace


def test_a_long_run_tells_no_more_poses_a_second_than_a_short_one():
    """Two hours at 15 poses a second, in steps of a second."""
    pace, told = PathPace(1.0), [0] * 7200
    for second in range(len(told)):
        poses = 15 * (second + 1)
        if pace.is_due(poses):
            told[second] = poses
    assert all(told[:300])
    for minute in range(0, 7200, 600):
        assert 0 < sum(told[minute : minute + 600]) <= 1.05 * 600 * POSES_PER_S
    when = [second for second, poses in enumerate(told) if poses]
    assert max(later - earlier for earlier, later in pairwise(when)) <= 23


def test_a_new_path_does_not_wait_for_the_old_one():
    pace = PathPace(1.0)
    assert pace.is_due(100_000)
    assert not pace.is_due(100_015)
    assert not pace.is_due(0)
    assert pace.is_due(15)
