# SPDX-License-Identifier: Apache-2.0
"""A recorder that is too slow for keyframes, or has no room, says how many have no file."""

from __future__ import annotations

import pytest
from plain_keyframe import plain_keyframe

rclpy = pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from worldsystem_core.ros import topics  # noqa: E402
from worldsystem_core.ros.node_thread import NodeThread, finish_all  # noqa: E402
from worldsystem_core.ros.reference_topic import ReferencePublisher  # noqa: E402
from worldsystem_storage.node import RecorderNode  # noqa: E402
from worldsystem_storage.space import Reserve  # noqa: E402

COUNT = 2 * topics.KEYFRAME.waiting


def test_every_keyframe_is_a_file_or_counted_with_the_reason_why_it_is_none(context, tmp_path):
    given = {"folder": str(tmp_path), "name": "bag", "reserve_mib": 1}
    overrides = [rclpy.parameter.Parameter(name, value=value) for name, value in given.items()]
    thread = NodeThread(RecorderNode(context=context, parameter_overrides=overrides))
    thread.start()
    stage = rclpy.create_node("slam3r", context=context)
    keyframes = ReferencePublisher(stage, topics.KEYFRAME, outside=False)
    node = thread.node
    try:
        with node.turn:  # it is at something else meanwhile
            for number in range(COUNT):
                keyframes.publish(plain_keyframe(number))
        assert thread.wait_idle(20.0)
        node._keyframe_files._reserve = Reserve(tmp_path, 1 << 40)  # no disk has that
        keyframes.publish(plain_keyframe(COUNT))
        assert thread.wait_idle(20.0)
        files, state = len(list(tmp_path.glob("video/*/keyframe_*.jpg"))), node.ledger.state()
        assert (state.used, state.in_flight, node.ledger.violations) == (files, 0, 0)
        assert state.dropped == {"queue_full": COUNT - files, "disk_full": 1}
        assert topics.KEYFRAME.waiting <= files < COUNT
        assert node.facts()["not_in_video"] == sum(state.dropped.values())
    finally:
        keyframes.destroy()
        finish_all([thread], 20.0)
        stage.destroy_node()
