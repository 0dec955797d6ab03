# SPDX-License-Identifier: Apache-2.0
"""Things of a few voxels are judged as large ones are."""

from __future__ import annotations

import numpy as np
import pytest

from worldsystem_core.frames import Camera
from worldsystem_segment.config import SegmentConfig
from worldsystem_segment.objects.view import View
from worldsystem_segment.objects.world_track import Detection
from worldsystem_segment.objects.world_tracker import WorldTracker

CAMERA = Camera.from_horizontal_fov(320, 180, np.deg2rad(70))
CONFIG = SegmentConfig()
NOBODYS = np.zeros((180, 320), np.int32)


def _view(keyframe_id: int, depth: np.ndarray | float) -> View:
    v, u = np.mgrid[:180, :320]
    z = np.broadcast_to(np.float32(depth), (180, 320))
    x, y = (u - CAMERA.cx) / CAMERA.fx, (v - CAMERA.cy) / CAMERA.fy
    points = np.stack([x * z, y * z, z], -1).astype(np.float32)
    return View(
        keyframe_id=keyframe_id, stride=1, camera=CAMERA, rgb=np.zeros((180, 320, 3), np.uint8),
        valid=np.ones((180, 320), bool), points_cam=points, normals=points,
        world_from_cam=np.eye(4), noise=0.01,
    )  # fmt: skip


def _thing(columns: int, rows: int) -> Detection:
    """A front of so many voxels, right of the picture's centre at a depth of 1."""
    edges = (CONFIG.voxel * (np.arange(count) + 0.5) for count in (columns, rows))
    points = np.stack(np.meshgrid(*edges, [1.0], indexing="ij"), -1).reshape(-1, 3)
    points = points.astype(np.float32)
    return Detection(
        points_cam=points, points_world=points, lab=np.zeros(3, np.float32), shape=lambda: "box",
        centre=points.mean(0), truncated=False,
    )  # fmt: skip


def _feed(tracker: WorldTracker, depth: np.ndarray | float, *seen: Detection) -> None:
    number = tracker.feed_count
    tracker.update(_view(number, depth), list(seen), number * 10**9, NOBODYS)


@pytest.mark.parametrize("side", [2, 4])
def test_a_thing_that_was_taken_away_vanishes_however_small_it_was(side: int) -> None:
    tracker = WorldTracker(CONFIG)
    for _ in range(30):
        _feed(tracker, 1.0, _thing(side, side))
    for _ in range(CONFIG.vanish_keyframes):
        assert tracker.tracks
        _feed(tracker, 2.0)
    assert not tracker.tracks
    assert tracker.vanished == 1


@pytest.mark.parametrize("side", [2, 4])
def test_a_thing_whose_place_shows_something_else_is_believed_no_more(side: int) -> None:
    tracker = WorldTracker(CONFIG)
    for _ in range(3):
        _feed(tracker, 1.0, _thing(side, side))
    (track,) = tracker.tracks.values()
    assert tracker.confirmed(track)
    for _ in range(8):  # 3 of 11 are less than the three tenths that it takes
        _feed(tracker, 1.0)
    assert not tracker.confirmed(track)
