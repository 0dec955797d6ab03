# SPDX-License-Identifier: Apache-2.0
"""What Rerun's queue takes while a map is reset."""

from __future__ import annotations

from world_for_viewers import camera_pose, pose_event

from worldsystem_core.reconstruction import MovedKeyframes, RemovedKeyframes
from worldsystem_viewer.config import ViewerConfig
from worldsystem_viewer.rerun_sink import RerunSink


def test_removals_that_come_one_by_one_crowd_nothing_out_of_the_log():
    """As between processes, where each keyframe of a map that is reset has a message."""
    sink = RerunSink(ViewerConfig(rerun_serve=False))
    sink.moved(MovedKeyframes({key: camera_pose(0.0) for key in range(300)}))
    sink.pose(pose_event(1, 0.1, keyframe_id=0))
    for key in range(300):
        sink.removed(RemovedKeyframes((key,)))
    assert sink.dropped == 0
    assert len(sink._inbox) == 2, "the pose, and that the path has gone"
