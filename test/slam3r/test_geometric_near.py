# SPDX-License-Identifier: Apache-2.0
"""What is computed a shorter way beside the live video, against the long way."""

from __future__ import annotations

import cv2
import filmed_room
import numpy as np
import pytest

from worldsystem_core.geometry.se3 import inverse, pose_from, transform
from worldsystem_slam3r.geometric import locate, tracking
from worldsystem_slam3r.geometric.densify import (
    IDEAL_ANGLE_RAD,
    LEAST_SEEN,
    TOLERATED_GROWTH,
    usefulness,
)
from worldsystem_slam3r.geometric.intake import Picture
from worldsystem_slam3r.geometric.map_store import KeyframeRecord, Map
from worldsystem_slam3r.geometric.tracking import FeatureTracker, follow, new_corners

K4 = np.array([300.0, 300.0, 159.5, 89.5])


def _grey(pose: np.ndarray) -> np.ndarray:
    rgb, _ = filmed_room.render(pose, filmed_room.camera(640, 360))
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY))


@pytest.fixture(scope="module")
def pair():
    """Two pictures, corners of the first, and where they truly are in the second."""
    before, after = (filmed_room.sideways_poses(3, step=0.1)[i] for i in (0, 2))
    camera = filmed_room.camera(640, 360)
    source, target = _grey(before), _grey(after)
    corners = new_corners(source, np.zeros((0, 2), np.float32), 300)
    depth = filmed_room.render(before, camera)[1]
    z = depth[corners[:, 1].round().astype(int), corners[:, 0].round().astype(int)]
    cam = np.column_stack([(corners - [camera.cx, camera.cy]) / camera.fx * z[:, None], z])
    there = transform(inverse(after) @ before, cam)
    truth = there[:, :2] / there[:, 2:] * camera.fx + [camera.cx, camera.cy]
    return source, target, corners, truth.astype(np.float32)


def test_from_a_near_start_the_coarse_levels_are_not_needed(pair):
    source, target, corners, truth = pair
    start = truth + np.random.default_rng(3).uniform(-4, 4, truth.shape).astype(np.float32)
    px, held = follow(source, target, corners, start, near=True)
    far_px, far_held = follow(source, target, corners, start)
    assert far_held.mean() > 0.7
    assert (held >= far_held).mean() > 0.99
    both = held & far_held
    assert np.percentile(np.linalg.norm(px[both] - far_px[both], axis=1), 99) < 0.05
    assert np.median(np.linalg.norm(px[held] - truth[held], axis=1)) < 0.25


@pytest.mark.parametrize("off_px", [8.0, 20.0, 45.0])
def test_however_far_off_a_start_is_none_that_hold_are_wrong(pair, off_px):
    """From 45 px off a third would hold without the coarse levels, half of them elsewhere."""
    source, target, corners, truth = pair
    px, held = follow(source, target, corners, truth + np.float32([off_px, 0.0]), near=True)
    assert held.mean() > 0.9
    assert (np.linalg.norm(px - truth, axis=1)[held] < 2.0).mean() > 0.99


@pytest.mark.parametrize(("late", "compared"), [(False, [1, 3, 5, 7, 9, 11]), (True, [1, 9])])
def test_a_lost_camera_that_is_behind_compares_fewer_pictures(monkeypatch, late, compared):
    """Each takes as long as four come in: those that wait for it would be let go."""
    seen = []
    monkeypatch.setattr(locate, "behind", lambda: late)
    monkeypatch.setattr(locate, "relocalise", lambda world, grey: seen.append(int(grey[0, 0])))
    locator = locate.Locator(Map(K4), FeatureTracker(50), np.eye(4))
    for number in range(1, 12):
        assert locator.locate(_picture(number)) is None  # there is nothing to be followed
    assert seen == compared


def _picture(number: int) -> Picture:
    grey = np.full((180, 320), number, np.uint8)
    rgb = np.repeat(grey[..., None], 3, axis=2)
    camera = filmed_room.camera(320, 180)
    return Picture(frame_id=number, stamp_ns=number, grey=grey, rgb=rgb, camera=camera)


def _record(number: int, pose: np.ndarray) -> KeyframeRecord:
    nothing = np.zeros((0, 2))
    grey = np.zeros((180, 320), np.uint8)
    return KeyframeRecord(
        id=number,
        frame_id=number,
        stamp_ns=number,
        cam_from_world=pose,
        ids=np.zeros(0, np.int64),
        px=nothing,
        grey=grey,
        rgb=np.zeros((90, 160, 3), np.uint8),
        view=None,
    )


def _usefulness_by_one(record, other, points) -> float:
    """The slow twin: one keyframe, point by point in NumPy's own words."""
    pose = other.cam_from_world
    cam = points @ pose[:3, :3].T + pose[:3, 3]
    z = np.maximum(cam[:, 2], 1e-6)
    uv = cam[:, :2] / z[:, None] * K4[:2] + K4[2:]
    h, w = other.grey.shape
    inside = (cam[:, 2] > 1e-6) & (uv >= 0).all(axis=1) & (uv[:, 0] < w) & (uv[:, 1] < h)
    if inside.sum() < LEAST_SEEN:
        return 0.0
    a = points[inside] - record.world_from_cam[:3, 3]
    b = points[inside] - other.world_from_cam[:3, 3]
    cosine = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    angle = float(np.median(np.arccos(np.clip(cosine, -1.0, 1.0))))
    off = np.log(max(angle, 1e-4) / IDEAL_ANGLE_RAD) / 0.7
    own_z = np.maximum(transform(record.cam_from_world, points[inside])[:, 2], 1e-6)
    growth = float(np.percentile(np.abs(np.log(z[inside] / own_z)), 75)) / TOLERATED_GROWTH
    return float(inside.mean() * np.exp(-0.5 * (off**2 + growth**2)))


@pytest.mark.parametrize("count", [LEAST_SEEN - 1, LEAST_SEEN, 31, 300])
def test_neighbours_are_weighed_together_as_one_by_one(count):
    rng = np.random.default_rng(count)
    points = rng.uniform([-3, -2, 2], [3, 2, 8], (count, 3))
    record = _record(0, pose_from(np.eye(3), np.zeros(3)))
    others = [
        _record(i, pose_from(cv2.Rodrigues(rng.normal(0, 0.3, 3))[0], rng.normal(0, 0.8, 3)))
        for i in range(1, 20)
    ]
    others.append(_record(20, pose_from(np.diag([-1.0, 1.0, -1.0]), np.zeros(3))))  # looks away
    found = usefulness(K4, record, others, points)
    wanted = [_usefulness_by_one(record, other, points) for other in others]
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)
    assert found[-1] == 0.0
    assert count < 31 or max(wanted) > 0.1


def test_points_are_followed_alike_whether_their_error_is_told_or_not(pair):
    source, target, corners, truth = pair
    there, found = tracking._flow(source, target, corners, truth.copy(), 3)
    plain, also, _ = cv2.calcOpticalFlowPyrLK(
        source,
        target,
        corners,
        truth.copy(),
        winSize=tracking.WINDOW,
        maxLevel=3,
        criteria=(cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 0.02),
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
        minEigThreshold=1e-3,
    )
    np.testing.assert_array_equal(there, plain)
    inside = ((plain >= 0) & (plain < [640, 360])).all(axis=1)
    np.testing.assert_array_equal(found[inside], also[inside])
    assert found[inside].mean() > 0.7


def test_where_there_is_no_room_no_corner_is_looked_for(pair, monkeypatch):
    source, _, corners, _ = pair
    monkeypatch.setattr(tracking.cv2, "cornerMinEigenVal", None)
    assert new_corners(source, corners, len(corners)).shape == (0, 2)
