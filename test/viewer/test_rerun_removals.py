# SPDX-License-Identifier: Apache-2.0
"""What Rerun's queue takes while a map is reset, and what it shows of corrections."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from world_for_viewers import camera_pose, keyframe, pose_event

from worldsystem_core.reconstruction import MovedKeyframes, RemovedKeyframes, ScaleState
from worldsystem_viewer.config import ViewerConfig
from worldsystem_viewer.rerun_entities import RerunEntities
from worldsystem_viewer.rerun_sink import RerunSink


def test_removals_that_come_one_by_one_crowd_nothing_out_of_the_log():
    """As between processes, where each keyframe of a map that is reset has a message."""
    sink = RerunSink(ViewerConfig(rerun_serve=False))
    sink.moved(MovedKeyframes({key: camera_pose(0.0) for key in range(300)}))
    sink.pose(pose_event(1, 0.1, keyframe_id=0))
    for key in range(300):
        sink.removed(RemovedKeyframes((key,)))
    assert sink.dropped == 0
    assert len(sink._inbox) == 2, "the pose, and that the path has gone"


@pytest.mark.parametrize("at_the_end", [False, True])
def test_a_correction_behind_the_last_pose_moves_the_path_and_turns_the_world(at_the_end):
    shown: dict[str, object] = {}
    rerun = SimpleNamespace(
        LineStrips3D=lambda strips, colors: strips[0],
        Transform3D=lambda **_: None,
        Pinhole=lambda **_: None,
        ViewCoordinates=SimpleNamespace(RIGHT_HAND_Z_UP="z up", RDF="y down"),
    )
    stream = SimpleNamespace(
        log=lambda path, what, static=False: shown.update({path: what}),
        set_time=lambda *_, **__: None,
        disable_timeline=lambda _: None,
    )
    sink = RerunSink(ViewerConfig(rerun_serve=False))
    sink._entities = RerunEntities(rerun, stream, 80, 2**20)
    sink.keyframe(keyframe(4, 0.0))
    for n in range(3):
        sink.pose(pose_event(n, n / 10, keyframe_id=4))
    while len(sink._inbox):
        sink._log_queued(0.0)
    before, moved = shown["world/path"], camera_pose(0.0)
    assert shown["world"] == "y down"
    moved[:3, 3] += 10.0
    sink.moved(MovedKeyframes({4: moved}, scale=ScaleState.METRIC))
    if at_the_end:
        sink._inbox.close()
        sink._thread.start()
        sink._thread.join(5)
    else:
        sink._entities._path_due_s = 0.0
        sink._log_queued(0.0)
    np.testing.assert_allclose(shown["world/path"], before + 10.0, atol=1e-5)
    assert shown["world"] == "z up"
