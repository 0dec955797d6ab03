# SPDX-License-Identifier: Apache-2.0
"""A viewer that comes after others have begun shows what was before, not only what changes."""

from __future__ import annotations

import time

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from rclpy.serialization import deserialize_message  # noqa: E402
from worldsystem_msgs.srv import MeshRequest  # noqa: E402

from worldsystem_core.reconstruction import Pose, TrackingState  # noqa: E402
from worldsystem_core.ros import topics  # noqa: E402
from worldsystem_core.ros.node_thread import NodeThread  # noqa: E402
from worldsystem_core.ros.reference_topic import ReferencePublisher  # noqa: E402
from worldsystem_core.surface import MeshBlock, MeshDelta  # noqa: E402
from worldsystem_core.trajectory import StampedPoses  # noqa: E402
from worldsystem_viewer.node import ViewerNode  # noqa: E402

LIMIT_S = 30.0


def delta(sequence: int, base: int, blocks: range) -> MeshDelta:
    """One triangle in each of the blocks."""
    corner = np.array([[0, 0, 0], [0.1, 0, 0], [0, 0.1, 0]], np.float32)
    return MeshDelta(
        stamp_ns=0,
        sequence=sequence,
        base_sequence=base,
        block_size=1.0,
        blocks=tuple(
            MeshBlock(
                index=(number, 0, 0),
                version=sequence,
                vertices=corner + np.float32(number),
                colours=np.zeros((3, 3), np.uint8),
                faces=np.array([[0, 1, 2]], np.int32),
            )
            for number in blocks
        ),
        removed=(),
        total_vertices=3 * len(blocks),
        total_faces=len(blocks),
        keyframe_count=1,
        capture_ns=0,
    )


def test_what_was_before_is_asked_for_and_shown_with_what_came_meanwhile(context):
    asked: list[int] = []
    mesher = rclpy.create_node("mesher", context=context)
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(mesher)

    def answer(request, response):
        asked.append(request.newer_than)
        (cdr,) = topics.MESH.adapter.dump(delta(7, 0, range(50)))
        response.delta = deserialize_message(cdr, topics.MESH.adapter.ros_type)
        return response

    mesher.create_service(MeshRequest, "mesh/request", answer)
    given = {"foxglove": False, "rerun": False, "web_port": 0}
    parameters = [rclpy.parameter.Parameter(name, value=value) for name, value in given.items()]
    viewer = NodeThread(ViewerNode(context=context, parameter_overrides=parameters))
    viewer.start()
    publisher = ReferencePublisher(mesher, topics.MESH, outside=False)
    try:
        publisher.publish(delta(7, 6, range(49, 50)))
        publisher.publish(delta(8, 7, range(50, 60)))
        deadline = time.monotonic() + LIMIT_S
        while viewer.node._page.block_count < 60 and time.monotonic() < deadline:
            executor.spin_once(timeout_sec=0.05)
        assert (viewer.node._page.block_count, asked) == (60, [0])
        publisher.publish(delta(9, 8, range(60, 61)))
        while viewer.node._page.block_count < 61 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert viewer.node._page.block_count == 61
        assert asked == [0]
    finally:
        publisher.destroy()
        viewer.stop()
        viewer.node.input_ended()
        viewer.node.close()
        executor.shutdown()
        mesher.destroy_node()


def test_the_path_from_before_the_viewer_is_shown(context):
    stamps = np.arange(40) * 100_000_000
    poses = np.tile(np.eye(4), (40, 1, 1))
    poses[:, 0, 3] = 0.1 * np.arange(40)
    tracker = rclpy.create_node("slam3r", context=context)
    path = ReferencePublisher(tracker, topics.PATH, outside=False)
    path.publish(StampedPoses(stamps[:30], poses[:30]))
    given = {"foxglove": False, "rerun": False, "web_port": 0, "restore": True}
    parameters = [rclpy.parameter.Parameter(name, value=value) for name, value in given.items()]
    viewer = NodeThread(ViewerNode(context=context, parameter_overrides=parameters))
    viewer.start()
    own = ReferencePublisher(tracker, topics.POSE, outside=False)
    try:
        for n in range(35, 40):
            pose = Pose(
                frame_id=n,
                stamp_ns=int(stamps[n]),
                world_from_cam=poses[n],
                confidence=1.0,
                state=TrackingState.TRACKED,
            )
            own.publish(pose)
        shown = lambda: viewer.node._page._world.path_at(10**18).positions[:, 0]  # noqa: E731
        deadline = time.monotonic() + LIMIT_S
        while len(shown()) < 35 and time.monotonic() < deadline:
            time.sleep(0.02)
        path.publish(StampedPoses(stamps, poses))
        while len(shown()) < 40 and time.monotonic() < deadline:
            time.sleep(0.02)
        np.testing.assert_allclose(shown(), poses[:, 0, 3], rtol=1e-6)
    finally:
        path.destroy()
        own.destroy()
        viewer.stop()
        viewer.node.input_ended()
        viewer.node.close()
        tracker.destroy_node()
