# SPDX-License-Identifier: Apache-2.0
"""A viewer that is too slow for keyframes says how many it never showed."""

from __future__ import annotations

import pytest

rclpy = pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from world_for_viewers import keyframe  # noqa: E402

from worldsystem_core.reconstruction import NewKeyframe  # noqa: E402
from worldsystem_core.ros import topics  # noqa: E402
from worldsystem_core.ros.node_thread import NodeThread  # noqa: E402
from worldsystem_core.ros.reference_topic import ReferencePublisher  # noqa: E402
from worldsystem_viewer.node import ViewerNode  # noqa: E402

COUNT = 3 * topics.KEYFRAME.waiting


def test_every_keyframe_is_shown_or_counted_as_lost_for_a_full_queue(context):
    given = {"foxglove": False, "rerun": False, "web_port": 0}
    parameters = [rclpy.parameter.Parameter(name, value=value) for name, value in given.items()]
    viewer = NodeThread(ViewerNode(context=context, parameter_overrides=parameters))
    viewer.start()
    tracker = rclpy.create_node("slam3r", context=context)
    keyframes = ReferencePublisher(tracker, topics.KEYFRAME, outside=False)
    try:
        with viewer.node.turn:  # it is at something else meanwhile
            for number in range(COUNT):
                keyframes.publish(NewKeyframe(keyframe(number, 0.01 * number)))
        assert viewer.wait_idle(20.0)
        state = viewer.node.ledger.state()
        assert (state.taken, state.in_flight, viewer.node.ledger.violations) == (COUNT, 0, 0)
        assert state.used == len(viewer.node._keyframe_poses) >= topics.KEYFRAME.waiting
        assert state.dropped == {"queue_full": COUNT - state.used}
    finally:
        keyframes.destroy()
        viewer.stop()
        viewer.node.input_ended()
        viewer.node.close()
        tracker.destroy_node()
