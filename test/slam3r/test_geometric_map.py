# SPDX-License-Identifier: Apache-2.0
"""The geometric back-end's map is as large as what it holds, however high its tracks' ids are."""

from __future__ import annotations

import filmed_room
import numpy as np
import pytest

from worldsystem_core.frames import Frame
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.geometric import system
from worldsystem_slam3r.geometric.map_store import Map
from worldsystem_slam3r.geometric.system import GeometricBackend

MANY = 10_000_000


@pytest.fixture(scope="module")
def film() -> list[Frame]:
    poses = filmed_room.sideways_poses(30, step=0.09)
    return filmed_room.frames(poses, filmed_room.camera(320, 180))


def map_begun_after(tracks: int, film: list[Frame]) -> Map:
    """The map of the film at its start, where so many tracks were followed before it."""
    backend = GeometricBackend(Slam3rConfig(synchronous=True))
    backend._tracker._next_id = tracks
    for frame in film:
        backend.feed(frame)
        if backend._map is not None:
            break
    backend.close()
    assert backend._map is not None
    return backend._map


def test_a_map_begun_after_ten_million_tracks_is_the_one_begun_after_none(film):
    early, late = map_begun_after(0, film), map_begun_after(MANY, film)
    assert len(late.points.position) == len(early.points.position) < 10_000
    for a, b in zip(early.keyframes.values(), late.keyframes.values(), strict=True):
        assert np.array_equal(b.ids, a.ids + MANY)
        assert b.ids.min() >= late.points.base
        seen = early.seen_points(a)
        assert len(seen) >= 20
        assert np.array_equal(late.seen_points(b), seen)


def test_as_many_keyframes_are_refined_together_as_was_asked_for(monkeypatch):
    """Though fewer are kept for anything else; those before the window are held."""
    refined: list[int] = []
    adjust = system.adjust

    def counted(bundle, **given):
        refined.append(len(bundle.rotations))
        return adjust(bundle, **given)

    monkeypatch.setattr(system, "adjust", counted)
    monkeypatch.setattr(system, "KEPT_KEYFRAMES", 5)
    backend = GeometricBackend(Slam3rConfig(synchronous=True, window_keyframes=7, depth_planes=16))
    camera = filmed_room.camera(320, 180)
    for frame in filmed_room.frames(filmed_room.roaming_poses(180)[::3], camera):
        backend.feed(frame)
    backend.close()
    assert backend._map is not None
    assert backend._map.next_id > 11, "too few keyframes to fill the window"
    assert max(refined) == 7 + system.FIXED_KEYFRAMES
    assert len(backend._map.keyframes) == 7 + system.FIXED_KEYFRAMES
