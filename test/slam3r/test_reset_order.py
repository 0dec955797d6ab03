# SPDX-License-Identifier: Apache-2.0
"""A reset helps where stamps or ids jumped: the new map's pictures may come by any clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import filmed_room
import pytest
import tiny_da3

from worldsystem_core.errors import BackendError
from worldsystem_core.frames import Frame
from worldsystem_core.reconstruction import (
    Event,
    NewKeyframe,
    Pose,
    ReconstructionBackend,
    TrackingState,
)
from worldsystem_slam3r import backend as backends
from worldsystem_slam3r.backend import OpenedBackend, begin_anew, open_backend
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.da3.backend import Da3Backend

HOUR_NS = 3600 * 10**9


@pytest.fixture(scope="module")
def film() -> list[Frame]:
    return filmed_room.frames(filmed_room.sideways_poses(30, step=0.09), filmed_room.camera())


def later(frames: list[Frame]) -> list[Frame]:
    """The same from a camera whose clock was an hour ahead, after many others."""
    return [
        replace(frame, id=frame.id + 1000, stamp_ns=frame.stamp_ns + HOUR_NS) for frame in frames
    ]


class Renewed:
    """A back-end that cannot restart, and refuses what is late: another takes its place."""

    def __init__(self) -> None:
        self._inner = Da3Backend(tiny_da3.TruthfulNetwork(), Slam3rConfig(synchronous=True))

    def feed(self, frame: Frame) -> list[Event]:
        return self._inner.feed(frame)

    def finish(self) -> list[Event]:
        return self._inner.finish()


def da3() -> ReconstructionBackend:
    return Da3Backend(tiny_da3.TruthfulNetwork(), Slam3rConfig(synchronous=True))


def opened(kind: str, monkeypatch, *, graph: bool) -> tuple[OpenedBackend, Slam3rConfig]:
    config = Slam3rConfig(backend=kind, synchronous=True, graph=graph, da3_window=4)
    makers: dict[str, Callable[[], ReconstructionBackend]] = {"da3": da3, "slam3r": Renewed}
    if kind in makers:
        monkeypatch.setitem(backends._MAKERS, kind, lambda _: makers[kind]())
    return open_backend(kind, config), config


@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize("kind", ["geometric", "da3", "slam3r"])
def test_after_a_reset_pictures_of_an_earlier_clock_are_taken(kind, graph, film, monkeypatch):
    running, config = opened(kind, monkeypatch, graph=graph)
    frames = film if kind == "geometric" else [tiny_da3.frame(i) for i in range(12)]
    for frame in later(frames):
        running.backend.feed(frame)
    running = begin_anew(running, config, next_id=100)
    events = [event for frame in frames for event in running.backend.feed(frame)]
    events += running.backend.finish()
    answered = {event.frame_id for event in events if isinstance(event, Pose)}
    assert answered == {frame.id for frame in frames}
    assert any(isinstance(event, NewKeyframe) for event in events)


@pytest.mark.parametrize("graph", [True, False])
def test_a_reset_before_the_start_lets_go_of_the_pictures_before_it(graph, film, monkeypatch):
    """A camera that stands still begins no map; the same picture is the first of the new one."""
    running, config = opened("geometric", monkeypatch, graph=graph)
    still = [replace(film[0], id=frame.id, stamp_ns=frame.stamp_ns) for frame in film[:10]]
    assert not [event for frame in later(still) for event in running.backend.feed(frame)]
    running = begin_anew(running, config, next_id=100)
    events = [event for frame in film for event in running.backend.feed(frame)]
    events += running.backend.finish()
    poses = [event for event in events if isinstance(event, Pose)]
    assert any(pose.state is TrackingState.TRACKED for pose in poses)
    assert {pose.frame_id for pose in poses} == {frame.id for frame in film}
    assert max(pose.stamp_ns for pose in poses) == film[-1].stamp_ns


@pytest.mark.parametrize("kind", ["geometric", "da3"])
def test_a_new_part_of_the_same_map_keeps_the_order(kind, film, monkeypatch):
    """After a loss the same camera goes on; its late pictures are late as ever."""
    running, _ = opened(kind, monkeypatch, graph=False)
    frames = film[:4] if kind == "geometric" else [tiny_da3.frame(i) for i in range(4)]
    for frame in later(frames):
        running.backend.feed(frame)
    running.backend.restart()
    with pytest.raises(BackendError, match="feed frames in order"):
        running.backend.feed(frames[0])


@pytest.mark.ros
@pytest.mark.parametrize("own_process", [True, False])
def test_the_stage_takes_pictures_of_an_earlier_clock_after_a_reset(context, film, own_process):
    from rclpy.parameter import Parameter
    from worldsystem_msgs.srv import Reset

    from worldsystem_slam3r.node import Slam3rNode

    given = {"own_process": own_process, "synchronous": True, "spare_process": False}
    settings = [Parameter(name, value=value) for name, value in given.items()]
    stage = Slam3rNode(context=context, parameter_overrides=settings)
    try:
        for frame in later(film):
            stage._on_frame(frame)
        stage._on_frame(film[0])
        assert stage.ledger.state().dropped == {"out_of_order": 1}
        assert stage._on_reset(Reset.Request(), Reset.Response()).success
        for frame in film:
            stage._on_frame(frame)
        stage.input_ended()
        state = stage.ledger.state()
        assert state.dropped == {"out_of_order": 1}
        assert (state.used, state.in_flight) == (2 * len(film), 0)
        assert stage._trajectory.keyframe_ids
    finally:
        stage.close()
