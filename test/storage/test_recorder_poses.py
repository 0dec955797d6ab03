# SPDX-License-Identifier: Apache-2.0
"""Where keyframes lie, in the files beside a recording."""

from __future__ import annotations

import numpy as np
import pytest
from plain_keyframe import plain_keyframe

pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from recorder_lab import recorder, wait_until

from worldsystem_core.reconstruction import MovedKeyframes

pytestmark = pytest.mark.ros


def test_where_a_keyframe_moved_to_is_written_within_a_second_and_at_the_end(context, tmp_path):
    node, thread = recorder(context, tmp_path)
    then, last = np.eye(4), np.eye(4)
    then[0, 3], last[0, 3] = 1.0, 2.0
    with node.turn:
        node._on_keyframe(plain_keyframe(4))
        node._on_keyframe(MovedKeyframes({4: then}))
    (pose,) = tmp_path.glob("video/*/pose_4.npy")
    wait_until(lambda: np.array_equal(np.load(pose), then))
    thread.stop()
    node._on_keyframe(MovedKeyframes({4: last}))
    node.input_ended()
    assert np.array_equal(np.load(pose), last)
    node.close()
