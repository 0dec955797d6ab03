# SPDX-License-Identifier: Apache-2.0
"""What a viewer shows when its input has ended, and what it says of itself until then."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")

from world_for_viewers import delta as one_after_another  # noqa: E402
from world_for_viewers import ground_block, keyframe, pose_event  # noqa: E402

from worldsystem_core.ledger import LedgerState, StageReport  # noqa: E402
from worldsystem_core.reconstruction import (  # noqa: E402
    MovedKeyframes,
    NewKeyframe,
    RemovedKeyframes,
    ScaleState,
)
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


def looking_down(ahead: float) -> np.ndarray:
    """`world_from_cam` of a camera over a map whose z is up, its picture's up along ±y."""
    pose = np.eye(4)
    pose[:3, :3] = [[ahead, 0, 0], [0, -ahead, 0], [0, 0, -1]]
    return pose


def test_a_metric_map_stands_upright_though_all_cameras_look_straight_down(made):
    """Legs to and fro, as of a survey: the pictures' up tells nothing of the vertical."""
    viewer = made()

    def told_up() -> list[float]:
        viewer._publish_status()
        return viewer._page._values["up"]

    for number, ahead in enumerate((1.0, -1.0, 1.0)):
        one = dataclasses.replace(
            keyframe(number, 0.1), world_from_cam=looking_down(ahead), scale=ScaleState.METRIC
        )
        viewer._on_keyframe(NewKeyframe(one))
    assert told_up() == [0.0, 0.0, 1.0]
    viewer._on_keyframe(RemovedKeyframes((0, 1, 2)))
    assert told_up() == [0.0, -1.0, 0.0], "after a reset nothing is known"
    viewer._on_keyframe(NewKeyframe(keyframe(3, 0.1)))
    assert told_up() != [0.0, 0.0, 1.0], "a scene's vertical is an estimate"
    viewer._on_keyframe(MovedKeyframes({3: looking_down(1.0)}, scale=ScaleState.METRIC))
    assert told_up() == [0.0, 0.0, 1.0]


def test_those_who_look_on_after_the_end_are_told_of_no_rate(made):
    viewer = made()
    for second, used in ((1, 10), (2, 25)):
        ledger = LedgerState("slam3r", used, used)
        stamp_ns = second * 10**9
        report = StageReport(stamp_ns=stamp_ns, ledger=ledger, violations=0, latency_counts=())
        viewer._board.take(report)
    viewer._publish_status()
    assert viewer._page._values["fps"] == 15.0
    viewer.input_ended()
    assert viewer._page._values["fps"] == 0.0
