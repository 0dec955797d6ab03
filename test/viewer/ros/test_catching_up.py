# SPDX-License-Identifier: Apache-2.0
"""A viewer that comes after the mesher has begun shows the whole surface, not only what changes."""

from __future__ import annotations

import time

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from rclpy.serialization import deserialize_message  # noqa: E402
from worldsystem_msgs.srv import MeshRequest  # noqa: E402

from worldsystem_core.ros import topics  # noqa: E402
from worldsystem_core.ros.node_thread import NodeThread  # noqa: E402
from worldsystem_core.ros.reference_topic import ReferencePublisher  # noqa: E402
from worldsystem_core.surface import MeshBlock, MeshDelta  # noqa: E402
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
