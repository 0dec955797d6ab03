# SPDX-License-Identifier: Apache-2.0
"""Keyframes that moved together are told as each of them alone would be."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from message_lab import some_pose
from rclpy.serialization import deserialize_message

from worldsystem_core.reconstruction import MovedKeyframes, ScaleState
from worldsystem_core.ros import topics
from worldsystem_core.ros.adapters.messages import world_frame


@pytest.mark.parametrize("scale", [None, *ScaleState])
@pytest.mark.parametrize("world", ScaleState)
def test_each_of_many_moved_keyframes_is_told_with_its_own_number_pose_and_size(scale, world):
    poses = {3: some_pose(1), 2**32 - 1: some_pose(2), 9: some_pose(3)}
    told = topics.KEYFRAME.adapter.dump(MovedKeyframes(poses, {9: 2.5}, scale, world))
    for (key, pose), cdr in zip(poses.items(), told, strict=True):
        message = deserialize_message(cdr, topics.KEYFRAME.adapter.ros_type)
        assert (message.id, message.event, message.frame_id) == (key, message.UPDATE, 0)
        assert message.header.frame_id == world_frame(scale or world)
        assert message.scale_state == (scale or world).value
        assert message.point_scale == (2.5 if key == 9 else 0.0)
        assert (message.root_changed, message.has_successor) == (scale is not None, False)
        assert (message.successor, len(message.points.data)) == (0, 0)
        (back,) = topics.KEYFRAME.adapter.load(cdr).world_from_cam.values()
        np.testing.assert_allclose(back, pose, atol=1e-12)


def test_no_moved_keyframes_are_no_message():
    assert topics.KEYFRAME.adapter.dump(MovedKeyframes({})) == []
