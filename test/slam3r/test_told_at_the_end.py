# SPDX-License-Identifier: Apache-2.0
"""What is left to tell when the pictures have ended reaches readers that are slow."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from drifting_backend import DriftingBackend, Film, film, ring_poses

from worldsystem_core.config import Config
from worldsystem_core.keyframe_inbox import Told
from worldsystem_core.reconstruction import NewKeyframe
from worldsystem_slam3r import backend as backends
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.running import RunningHere

pytest.importorskip("rclpy", reason="ROS is not set up: run these through `make test`")
pytestmark = pytest.mark.ros

SAVED, ROOM = 17, 8


@dataclass(frozen=True)
class NoSettings(Config):
    """Nothing to set."""


@pytest.fixture(scope="module")
def ring() -> Film:
    return film(ring_poses(21)[: SAVED + 1])


@pytest.fixture
def stage(context, ring, tmp_path, monkeypatch):
    """One that has loaded a map and told the first keyframes of it."""
    from rclpy.parameter import Parameter

    from worldsystem_slam3r.node import Slam3rNode

    monkeypatch.setitem(backends._MAKERS, "geometric", lambda _: DriftingBackend([ring]))
    before = RunningHere(Slam3rConfig())
    for frame in ring.frames[:SAVED]:
        before.feed(frame)
    before.map_service("save_map", str(tmp_path / "map"))
    given = {"map": str(tmp_path / "map"), "map_every_s": 0.0}
    settings = [Parameter(name, value=value) for name, value in given.items()]
    slam3r = Slam3rNode(context=context, parameter_overrides=settings)
    yield slam3r
    slam3r.close()


@contextmanager
def reader(context, callback: Callable[[Told], object]) -> Iterator:
    """A stage that calls back with keyframes in a thread of its own, and its small inbox."""
    from worldsystem_core.ros import topics
    from worldsystem_core.ros.node_thread import NodeThread
    from worldsystem_core.ros.stage_node import StageNode

    node = StageNode("reader", NoSettings, context=context)
    inbox = node.listen(topics.KEYFRAME, callback, depth=ROOM)
    thread = NodeThread(node)
    thread.start()
    try:
        yield thread, inbox
    finally:
        thread.stop()
        node.close()


def test_all_keyframes_of_a_loaded_map_reach_a_slow_reader_at_the_end(context, stage, ring):
    told: list[Told] = []
    ended = threading.Event()

    def slowly(event: Told) -> None:
        told.append(event)
        ended.wait(0.1)

    with reader(context, slowly) as (thread, inbox):
        stage._on_frame(ring.frames[SAVED])
        stage.input_ended()
        ended.set()
        assert thread.wait_idle(20.0)
        assert inbox.dropped == 0
    ids = {event.keyframe.id for event in told if isinstance(event, NewKeyframe)}
    assert ids == set(range(SAVED + 1))


def test_who_wants_the_end_waits_for_no_reader(context, stage, ring):
    go_on = threading.Event()
    with reader(context, lambda _: go_on.wait(30.0)) as (_, inbox):
        stage._on_frame(ring.frames[SAVED])
        stage.hurried.set()
        stage.input_ended()
        assert not go_on.is_set()
        assert inbox.dropped > 0
        go_on.set()
