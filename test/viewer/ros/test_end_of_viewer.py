# SPDX-License-Identifier: Apache-2.0
"""What a viewer shows when its input has ended, and what it says of itself until then."""

from __future__ import annotations

import pytest

rclpy = pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from world_for_viewers import delta as one_after_another  # noqa: E402
from world_for_viewers import ground_block, pose_event  # noqa: E402

from worldsystem_viewer.node import ViewerNode  # noqa: E402


@pytest.fixture
def made(context):
    """Viewers without the other stages; nothing of them turns but their own threads."""
    nodes = []

    def make(**settings: object) -> ViewerNode:
        given = {"foxglove": False, "rerun": False, "web_port": 0} | settings
        parameters = [rclpy.parameter.Parameter(name, value=given[name]) for name in given]
        nodes.append(ViewerNode(context=context, parameter_overrides=parameters))
        return nodes[-1]

    yield make
    for node in nodes:
        node.input_ended()
        node.close()


def test_what_waited_for_a_mesher_that_has_ended_is_shown_at_the_end(made):
    viewer = made()
    viewer._surface.take(one_after_another([ground_block(1, 0)], 1))
    viewer._surface.take(one_after_another([ground_block(3, 0)], 3))  # the second was missed
    assert viewer._page.block_count == 1
    viewer.input_ended()
    assert viewer._page.block_count == 2


def test_the_facts_tell_what_rerun_was_not_told(made, tmp_path):
    pytest.importorskip("rerun", reason="rerun-sdk is not installed")
    path = tmp_path / "world.rrd"
    viewer = made(rerun=True, rerun_serve=False, rerun_file=str(path), web=False)
    assert viewer.facts() == {"dropped_rerun": 0}
    viewer._rerun.stop()
    for n in range(5):
        viewer._rerun.pose(pose_event(n, 0.1))
    assert viewer.facts() == {"dropped_rerun": 5}
