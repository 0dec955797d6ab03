# SPDX-License-Identifier: Apache-2.0
"""Keyframes that wait for their depth get it, also when many wait and the map ends."""

from __future__ import annotations

import time
from dataclasses import replace

import filmed_room
import numpy as np
import pytest

from worldsystem_core.reconstruction import Event, NewKeyframe
from worldsystem_slam3r.backend import open_backend
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.geometric import calibrate, densify
from worldsystem_slam3r.geometric.system import GeometricBackend
from worldsystem_slam3r.session.backend import GraphBackend

CAMERA = filmed_room.camera(320, 180)
SWEPT_S = 0.05
KEPT_WAITING = 5


@pytest.fixture
def slow_depth(monkeypatch) -> None:
    """Depth takes its time, little of it may wait, and the lens is only known late."""
    sweep = densify.sweep

    def slowly(*given: object) -> object:
        time.sleep(SWEPT_S)
        return sweep(*given)

    monkeypatch.setattr(densify, "sweep", slowly)
    monkeypatch.setattr(densify, "QUEUE", 2)
    monkeypatch.setattr(calibrate, "KEYFRAMES", (30,))


def told(events: list[Event]) -> list[int]:
    return [event.keyframe.id for event in events if isinstance(event, NewKeyframe)]


@pytest.mark.parametrize("end", ["loss", "restart", "finish"])
def test_all_keyframes_that_waited_for_their_lens_are_told(slow_depth, end):
    backend = GeometricBackend(Slam3rConfig(synchronous=False, depth_planes=16))
    poses = filmed_room.sideways_poses(28, step=0.2)
    film = filmed_room.frames(poses, CAMERA, known_camera=False)
    events = [event for frame in film for event in backend.feed(frame)]
    assert not told(events)
    if end == "restart":
        events += backend.restart()
    elif end == "loss":
        black = np.zeros_like(film[0].rgb)
        for i in range(100, 1600):  # no more than there is room for at a time, on any machine
            events += backend.feed(replace(film[0], id=i, stamp_ns=i * 10**8, rgb=black))
            if len(told(events)) >= KEPT_WAITING:
                break
            time.sleep(0.4 * SWEPT_S)
    if end != "finish":
        assert len(told(events)) >= KEPT_WAITING
    events += backend.finish()
    assert told(events) == list(range(len(told(events))))
    assert len(told(events)) >= KEPT_WAITING
    assert backend.dropped_keyframes == 0


def test_diagnostics_count_keyframes_without_depth():
    graph = open_backend("geometric", Slam3rConfig(synchronous=True)).backend
    assert isinstance(graph, GraphBackend)
    assert graph.facts()["dropped_keyframes"] == 0
    graph.close()
