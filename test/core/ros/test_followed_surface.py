# SPDX-License-Identifier: Apache-2.0
"""Who follows the surface asks the mesher that is there now, not the one that has died."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

rclpy = pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from rclpy.serialization import deserialize_message  # noqa: E402
from worldsystem_msgs.srv import MeshRequest  # noqa: E402

from worldsystem_core.config import Config  # noqa: E402
from worldsystem_core.ros import topics  # noqa: E402
from worldsystem_core.ros.followed_surface import FollowedSurface  # noqa: E402
from worldsystem_core.ros.node_thread import NodeThread  # noqa: E402
from worldsystem_core.ros.stage_node import StageNode  # noqa: E402
from worldsystem_core.surface import MeshDelta  # noqa: E402

TIMEOUT_S = 20.0


@dataclass(frozen=True)
class NoSettings(Config):
    """Nothing to set."""


def delta(sequence: int, base: int, stamp_ns: int) -> MeshDelta:
    """One that changes nothing."""
    return MeshDelta(
        stamp_ns=stamp_ns,
        sequence=sequence,
        base_sequence=base,
        block_size=0.1,
        blocks=(),
        removed=(),
        total_vertices=0,
        total_faces=0,
        keyframe_count=1,
        capture_ns=0,
    )


class Follower(StageNode):
    """Keeps the numbers of what it is to show."""

    def __init__(self, context):
        super().__init__("follower", NoSettings, context=context)
        self.shown: list[int] = []
        self.surface = FollowedSurface(self, lambda delta: self.shown.append(delta.sequence))


class Mesher(StageNode):
    """Answers as one that has come to a delta."""

    reached = 35
    problem = ""

    def __init__(self, context):
        super().__init__("mesher", NoSettings, context=context)
        self.asked: list[int] = []
        self.create_service(MeshRequest, "mesh/request", self._on_request)

    def _on_request(self, request, response):
        self.asked.append(request.newer_than)
        if self.problem:
            response.problem = self.problem
            return response
        (cdr,) = topics.MESH.adapter.dump(delta(self.reached, request.newer_than, stamp_ns=100))
        response.delta = deserialize_message(cdr, topics.MESH.adapter.ros_type)
        return response


@contextmanager
def running(*nodes: StageNode) -> Iterator[None]:
    """Each in a thread of its own, until the test is through with them."""
    threads = [NodeThread(node) for node in nodes]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.stop()
            thread.node.close()


def wait_until_shown(expected: list[int], follower: Follower, mesher: Mesher) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while follower.shown != expected:
        assert time.monotonic() < deadline, f"asked {mesher.asked}, shown {follower.shown}"
        time.sleep(0.02)


@pytest.mark.parametrize("reached", [35, 0])
def test_a_surface_at_rest_is_shown_to_one_that_begins(context, reached):
    """As to a viewer that is begun anew after the landing; before the first, there is nothing."""
    follower, mesher = Follower(context), Mesher(context)
    mesher.reached = reached
    with running(follower, mesher):
        deadline = time.monotonic() + TIMEOUT_S
        while not mesher.asked or len(follower.shown) < bool(reached):
            assert time.monotonic() < deadline, f"asked {mesher.asked}, shown {follower.shown}"
            time.sleep(0.02)
        time.sleep(0.5)
        assert mesher.asked == [0]
        assert follower.shown == [reached] * bool(reached)


def test_a_mesher_that_begins_anew_is_not_asked_with_the_number_of_the_one_before(context):
    follower = Follower(context)
    with follower.turn:
        follower.surface.take(delta(30, 0, stamp_ns=30))
        follower.surface.take(delta(32, 31, stamp_ns=32))
        follower.surface.take(delta(3, 2, stamp_ns=50))
    mesher = Mesher(context)
    with running(follower, mesher):
        wait_until_shown([30, 35], follower, mesher)
        assert mesher.asked == [0]


def test_what_the_mesher_cannot_give_keeps_nothing_else_from_being_shown(context, caplog):
    """As where a record of its page file is damaged."""
    follower = Follower(context)
    with follower.turn:
        follower.surface.take(delta(30, 0, stamp_ns=30))
        follower.surface.take(delta(32, 31, stamp_ns=32))
    mesher = Mesher(context)
    mesher.problem = "record 7 of a page file is damaged"
    with running(follower, mesher):
        wait_until_shown([30, 32], follower, mesher)
        with follower.turn:
            follower.surface.take(delta(33, 32, stamp_ns=33))
        assert follower.shown == [30, 32, 33]
        assert mesher.asked == [30]
        assert "record 7 of a page file is damaged" in caplog.text
