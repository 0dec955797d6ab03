# SPDX-License-Identifier: Apache-2.0
"""The surface that a run leaves is whole, though its reporter missed some of what was told."""

from __future__ import annotations

import time

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from rclpy.serialization import deserialize_message  # noqa: E402
from worldsystem_msgs.srv import MeshRequest  # noqa: E402

from worldsystem.node import ReporterNode  # noqa: E402
from worldsystem_core.ros import topics  # noqa: E402
from worldsystem_core.ros.node_thread import NodeThread  # noqa: E402
from worldsystem_core.ros.reference_topic import ReferencePublisher  # noqa: E402
from worldsystem_core.surface import MeshBlock, MeshDelta  # noqa: E402

LIMIT_S = 30.0


def delta(sequence: int, base: int, blocks: range) -> MeshDelta:
    """Blocks without triangles, of version `sequence`."""
    made = tuple(
        MeshBlock(
            index=(number, 0, 0),
            version=sequence,
            vertices=np.zeros((0, 3), np.float32),
            colours=np.zeros((0, 3), np.uint8),
            faces=np.zeros((0, 3), np.int32),
        )
        for number in blocks
    )
    return MeshDelta(
        stamp_ns=0,
        sequence=sequence,
        base_sequence=base,
        block_size=1.0,
        blocks=made,
        removed=(),
        total_vertices=0,
        total_faces=0,
        keyframe_count=1,
        capture_ns=0,
    )


@pytest.fixture
def mesher(context):
    """A node that publishes deltas by `tell`."""
    node = rclpy.create_node("mesher", context=context)
    publisher = ReferencePublisher(node, topics.MESH, outside=False)
    node.tell = publisher.publish
    yield node
    publisher.destroy()
    node.destroy_node()


@pytest.fixture
def reporter(context, tmp_path):
    folder = rclpy.parameter.Parameter("folder", value=str(tmp_path / "run"))
    thread = NodeThread(ReporterNode(context=context, parameter_overrides=[folder]))
    thread.start()
    yield thread.node
    thread.stop()
    thread.node.close()


def wait_for(condition, step) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        step()


def test_what_it_missed_it_asks_the_mesher_for(context, mesher, reporter):
    def answer(request, response):
        (cdr,) = topics.MESH.adapter.dump(delta(3, request.newer_than, range(1, 3)))
        response.delta = deserialize_message(cdr, topics.MESH.adapter.ros_type)
        return response

    mesher.create_service(MeshRequest, "mesh/request", answer)
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(mesher)
    mesher.tell(delta(1, 0, range(1)))
    mesher.tell(delta(3, 2, range(2, 3)))
    mesher.tell(delta(4, 3, range(3, 4)))
    surface = reporter.observer.surface
    try:
        wait_for(lambda: len(surface.blocks) == 4, lambda: executor.spin_once(timeout_sec=0.05))
        assert surface.sequence == 4
    finally:
        executor.shutdown()


def test_what_waits_for_an_answer_at_the_end_is_kept(mesher, reporter):
    mesher.tell(delta(1, 0, range(1)))
    mesher.tell(delta(3, 2, range(2, 3)))
    surface = reporter.observer.surface
    wait_for(lambda: reporter._surface._follower.newer_than == 1, lambda: time.sleep(0.01))
    assert len(surface.blocks) == 1
    reporter._surface.close()
    assert len(surface.blocks) == 2
