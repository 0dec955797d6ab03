# SPDX-License-Identifier: Apache-2.0
"""The steps of the geometric back-end, each against geometry that is known exactly."""

from __future__ import annotations

import threading

import filmed_room
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from worldsystem_core.geometry.se3 import inverse, pose_from, rotation_angle_rad, transform
from worldsystem_slam3r.geometric import densify
from worldsystem_slam3r.geometric.bundle import FOCAL, FOCAL_AND_RADIAL, Bundle, adjust
from worldsystem_slam3r.geometric.dense import Neighbour, Swept, View, judged, relative, sweep
from worldsystem_slam3r.geometric.densify import DenseStage, DenseTask, dense_task
from worldsystem_slam3r.geometric.initialise import (
    flow_beyond_rotation_px,
    rays,
    triangulate,
    two_views,
)
from worldsystem_slam3r.geometric.map_store import KeyframeRecord, Map
from worldsystem_slam3r.geometric.pose import find_pose, refine_pose
from worldsystem_slam3r.geometric.tracking import FeatureTracker, follow, new_corners

K4 = np.array([300.0, 300.0, 159.5, 89.5])


def _cloud(count: int = 200, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.uniform([-2, -1.2, 3], [2, 1.2, 7], (count, 3))


def _seen(points: np.ndarray, cam_from_world: np.ndarray) -> np.ndarray:
    cam = transform(cam_from_world, points)
    return cam[:, :2] / cam[:, 2:] * K4[:2] + K4[2:]


def _motion(turn_deg: float, shift: tuple[float, float, float]) -> np.ndarray:
    rotation = Rotation.from_euler("yx", [turn_deg, 0.4 * turn_deg], degrees=True).as_matrix()
    return pose_from(rotation, np.array(shift))


def _grey(pose: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(filmed_room.render(pose, filmed_room.camera(640, 360))[0][..., 0])


def test_two_views_recover_a_known_motion_up_to_scale():
    points, motion = _cloud(), _motion(4.0, (0.5, 0.05, 0.1))
    found = two_views(_seen(points, np.eye(4)), _seen(points, motion), K4)
    assert found
    found = found[0]
    assert rotation_angle_rad(found.second_from_first[:3, :3].T @ motion[:3, :3]) < 1e-3
    direction = found.second_from_first[:3, 3] / np.linalg.norm(found.second_from_first[:3, 3])
    assert direction @ (motion[:3, 3] / np.linalg.norm(motion[:3, 3])) > 0.9999
    assert np.median(found.points[found.good, 2]) == pytest.approx(1.0)


def test_two_views_of_a_plane_hold_the_true_motion_among_their_candidates():
    points, motion = _cloud(), _motion(3.0, (0.6, 0.0, 0.0))
    points[:, 2] = 5.0 + 0.3 * points[:, 0]
    found = two_views(_seen(points, np.eye(4)), _seen(points, motion), K4)
    turns = [rotation_angle_rad(one.second_from_first[:3, :3].T @ motion[:3, :3]) for one in found]
    assert min(turns) < 5e-3


def test_a_turning_camera_gives_no_start():
    points, rng = _cloud(), np.random.default_rng(0)
    a = _seen(points, np.eye(4)) + rng.normal(0, 0.3, (200, 2))
    b = _seen(points, _motion(10.0, (0.0, 0.0, 0.0))) + rng.normal(0, 0.3, (200, 2))
    assert flow_beyond_rotation_px(a, b, K4) < 1.0  # the noise of two pictures
    assert not any(view.wide for view in two_views(a, b, K4))


def test_too_few_matches_give_no_start():
    points = _cloud(20)
    seen = _seen(points, np.eye(4))
    assert two_views(seen, _seen(points, _motion(2.0, (0.4, 0, 0))), K4) == []


def test_flow_beyond_rotation_ignores_a_minority_that_moves_on_its_own():
    points = _cloud()
    a, b = _seen(points, np.eye(4)), _seen(points, np.eye(4))
    b[:60] += 30.0
    assert flow_beyond_rotation_px(a, b, K4) < 0.5


def test_triangulated_points_are_where_they_were_and_parallel_rays_give_nan():
    points, motion = _cloud(), _motion(5.0, (0.5, 0.0, 0.2))
    n = len(points)
    first, second = np.broadcast_to(np.eye(4), (n, 4, 4)), np.broadcast_to(motion, (n, 4, 4))
    a, b = rays(_seen(points, np.eye(4)), K4), rays(_seen(points, motion), K4)
    found, angle = triangulate(first, second, a, b)
    assert np.abs(found - points).max() < 1e-9
    assert (angle > 0).all()
    same, _ = triangulate(first, first, a, a)
    assert np.isnan(same).all()


def test_pose_is_found_among_a_third_of_wrong_matches():
    points, truth = _cloud(), _motion(12.0, (0.4, -0.2, 0.5))
    uv = _seen(points, truth)
    uv[:65] += np.random.default_rng(2).uniform(20, 60, (65, 2))
    found = find_pose(points, uv, K4)
    assert found is not None
    assert np.abs(found.cam_from_world - truth).max() < 1e-4
    assert found.inlier_count == 135


def test_pose_refinement_reaches_the_truth_from_a_prediction_nearby():
    points, truth = _cloud(), _motion(3.0, (0.2, 0.0, 0.1))
    fit = refine_pose(np.eye(4), points, _seen(points, truth), K4)
    assert np.abs(fit.cam_from_world - truth).max() < 1e-6
    assert fit.inliers.all()


def test_pose_needs_enough_points():
    points = _cloud(5)
    assert find_pose(points, _seen(points, np.eye(4)), K4) is None
    empty = refine_pose(np.eye(4), np.zeros((0, 3)), np.zeros((0, 2)), K4)
    assert empty.inlier_count == 0
    assert np.isfinite(empty.cam_from_world).all()


def _bundle(noise_px: float = 0.0, K4_guess: np.ndarray = K4) -> tuple[Bundle, list[np.ndarray]]:
    rng = np.random.default_rng(4)
    points = _cloud(120)
    poses = [_motion(3.0 * i, (0.25 * i, 0.1 * (i % 2), 0.05 * i)) for i in range(6)]
    uv = np.stack([_seen(points, pose) for pose in poses], axis=1)
    uv += rng.normal(0, noise_px, uv.shape) if noise_px else 0.0
    started = [
        pose @ _motion(rng.normal(0, 0.4), tuple(rng.normal(0, 0.02, 3))) if i > 1 else pose
        for i, pose in enumerate(poses)
    ]
    bundle = Bundle(
        rotations=np.stack([pose[:3, :3] for pose in started]),
        translations=np.stack([pose[:3, 3] for pose in started]),
        points=points + rng.normal(0, 0.05, points.shape),
        cam_index=np.tile(np.arange(6), 120),
        point_index=np.repeat(np.arange(120), 6),
        uv=uv.reshape(-1, 2),
        K4=K4_guess,
        fixed=np.arange(6) < 2,
    )
    return bundle, poses


def test_bundle_adjustment_recovers_perturbed_cameras():
    bundle, poses = _bundle()
    result = adjust(bundle, iterations=20)
    assert result.cost_after < 1e-6 * result.cost_before
    for rotation, translation, truth in zip(
        result.rotations, result.translations, poses, strict=True
    ):
        assert np.abs(rotation - truth[:3, :3]).max() < 1e-4
        assert np.abs(translation - truth[:3, 3]).max() < 1e-3


def test_bundle_adjustment_lowers_the_error_to_the_noise_and_shrugs_off_outliers():
    bundle, poses = _bundle(noise_px=0.3)
    bundle.uv[::37] += 25.0
    result = adjust(bundle, iterations=20)
    assert result.cost_after < result.cost_before
    assert np.median(result.error_px) < 0.45  # 0.3 px per axis has a median length of 0.35 px
    assert np.abs(result.translations[-1] - poses[-1][:3, 3]).max() < 0.02
    assert np.array_equal(result.rotations[:2], bundle.rotations[:2])


def test_bundle_adjustment_estimates_the_focal_length_where_it_shows():
    bundle, _ = _bundle(noise_px=0.2, K4_guess=np.array([345.0, 345.0, 159.5, 89.5]))
    free = Bundle(**{**vars(bundle), "fixed": np.arange(6) < 1})
    result = adjust(free, free_lens=FOCAL, iterations=60)
    assert result.K4[0] == pytest.approx(300.0, rel=0.02)
    assert result.focal_sigma < 0.02


@pytest.mark.parametrize("held", [False, True])
def test_bundle_adjustment_finds_radial_distortion_with_the_focal_length_or_beside_it(held):
    bundle, _ = _bundle(noise_px=0.0)
    straight = (bundle.uv - K4[2:]) / K4[:2]
    r2 = (straight**2).sum(axis=1, keepdims=True)
    bent = straight * (1.0 - 0.25 * r2 + 0.06 * r2**2) * K4[:2] + K4[2:]
    free = Bundle(**{**vars(bundle), "uv": bent, "fixed": np.arange(6) < 1})
    limits = {"iterations": 100, "least_gain": 1e-7}
    result = adjust(free, free_lens=FOCAL_AND_RADIAL, hold_focal=held, **limits)
    assert result.K4[0] == pytest.approx(300.0, rel=0.0 if held else 0.02)
    assert result.radial[0] == pytest.approx(-0.25, abs=0.03)
    assert np.isnan(result.focal_sigma) == held
    assert np.isfinite(result.radial_sigma).all()


def test_corners_cover_the_picture_and_a_blank_one_has_none():
    grey = _grey(filmed_room.sideways_poses(1)[0])
    corners = new_corners(grey, np.zeros((0, 2), np.float32), 300)
    assert len(corners) > 150
    quadrants = (corners[:, 0] > 320).astype(int) + 2 * (corners[:, 1] > 180)
    assert np.bincount(quadrants, minlength=4).min() > 20
    assert len(new_corners(np.full((360, 640), 90, np.uint8), corners[:0], 300)) == 0


def test_tracked_corners_follow_the_true_motion():
    poses = filmed_room.sideways_poses(6)
    camera = filmed_room.camera(640, 360)
    _, depth = filmed_room.render(poses[0], camera)
    tracker = FeatureTracker(300)
    tracker.restart(_grey(poses[0]))
    for pose in poses[1:]:
        tracker.advance(_grey(pose), [])
    start, end = tracker.anchor.px.astype(float), tracker.current.px.astype(float)
    assert len(start) > 100
    z = depth[start[:, 1].round().astype(int), start[:, 0].round().astype(int)]
    cam = np.column_stack([(start - [camera.cx, camera.cy]) / camera.fx * z[:, None], z])
    there = transform(inverse(poses[-1]) @ poses[0], cam)
    truth = there[:, :2] / there[:, 2:] * camera.fx + [camera.cx, camera.cy]
    assert np.median(np.linalg.norm(truth - end, axis=1)) < 0.25


def _views(poses: list[np.ndarray]) -> list[View]:
    return [View.of(_grey(pose), filmed_room.camera(640, 360)) for pose in poses]


def test_plane_sweep_measures_slanted_walls_to_one_percent():
    poses = filmed_room.sideways_poses(20)[::6]
    views = _views(poses)
    others = [
        Neighbour(view, relative(poses[1], pose))
        for view, pose in zip(views, poses, strict=True)
        if view is not views[1]
    ]
    truth = filmed_room.render(poses[1], views[1].dense_camera)[1]
    found = judged(views[1], sweep(views[1], others, (2.0, 14.0), 96), [])
    known = found.confidence > 0
    error = np.abs(found.depth[known] / truth[known] - 1.0)
    assert known.mean() > 0.6
    assert np.median(error) < 0.01
    assert np.percentile(error, 90) < 0.04


def test_a_textureless_picture_has_no_depth():
    flat = View.of(np.full((360, 640), 128, np.uint8), filmed_room.camera(640, 360))
    other = Neighbour(flat, _motion(0.0, (0.1, 0.0, 0.0)))
    found = judged(flat, sweep(flat, [other], (1.0, 10.0), 32), [])
    assert np.isnan(found.inverse_depth).all()
    assert not found.confidence.any()


def test_a_keyframe_without_neighbours_has_no_depth():
    view = _views(filmed_room.sideways_poses(1))[0]
    assert np.isnan(judged(view, sweep(view, [], (1.0, 10.0), 32), []).depth).all()


def _poorly_swept(view: View, inverse_depth: np.ndarray) -> Swept:
    """Depth that matches so badly that nobody would believe it alone."""
    return Swept(
        inverse_depth=inverse_depth.astype(np.float32),
        distinct=np.full(inverse_depth.shape, 0.06, np.float32),
        own_cost=np.full(inverse_depth.shape, 40.0, np.float32),
    )


def test_depth_that_matches_badly_is_believed_when_two_neighbours_agree():
    poses = filmed_room.sideways_poses(13)[::6]
    views = _views(poses)
    depths = [1.0 / filmed_room.render(pose, views[0].dense_camera)[1] for pose in poses]
    near = [
        (Neighbour(view, relative(poses[1], pose)), depth.astype(np.float32))
        for view, pose, depth in zip(views, poses, depths, strict=True)
    ]
    swept = _poorly_swept(views[1], depths[1])
    alone = judged(views[1], swept, [])
    confirmed = judged(views[1], swept, [near[0], near[2]])
    assert not alone.confidence.any()
    # The neighbours see most of the picture, and depth read half a pixel off agrees where smooth.
    assert (confirmed.confidence > 0).mean() > 0.6
    known = confirmed.confidence > 0
    assert np.abs(confirmed.inverse_depth[known] / depths[1][known] - 1.0).max() < 1e-6


def test_depth_that_a_neighbour_sees_through_is_unknown():
    pose = filmed_room.sideways_poses(1)[0]
    view = _views([pose])[0]
    truth = (1.0 / filmed_room.render(pose, view.dense_camera)[1]).astype(np.float32)
    well = Swept(
        inverse_depth=2.0 * truth,
        distinct=np.full(truth.shape, 0.9, np.float32),
        own_cost=np.zeros(truth.shape, np.float32),
    )
    assert not judged(view, well, [(Neighbour(view, np.eye(4)), truth)]).confidence.any()


def test_flying_forward_depth_is_matched_to_keyframes_that_see_things_nearly_as_large():
    world = Map(K4)
    points = _cloud(200)
    world.points.rows(np.arange(200))
    world.points.position[:200] = points
    grey = np.zeros((180, 320), np.uint8)
    for i in range(6):  # each a tenth of the median depth further on
        pose = pose_from(np.eye(3), np.array([0.0, 0.0, -0.5 * i]))
        uv = _seen(points, pose)
        inside = (uv >= 0).all(axis=1) & (uv < [320, 180]).all(axis=1)
        view = View.of(grey, filmed_room.camera(320, 180))
        record = KeyframeRecord(
            id=i,
            frame_id=i,
            stamp_ns=i,
            cam_from_world=pose,
            ids=np.flatnonzero(inside),
            px=uv[inside],
            grey=grey,
            rgb=np.zeros((90, 160, 3), np.uint8),
            view=view,
        )
        world.add(record)
    task = dense_task(world, world.keyframes[5], 2)
    forward = [abs(n.neighbour_from_reference[2, 3]) for n in task.neighbours]
    assert max(forward) == pytest.approx(1.0)  # the two nearest of five


@pytest.mark.parametrize(("prompt", "last_at_full"), [(False, 3), (True, 1)])
def test_dense_depth_that_is_behind_takes_fewer_neighbours_before_it_lets_keyframes_go(
    monkeypatch, prompt, last_at_full
):
    view = View.of(np.full((32, 48), 128, np.uint8), filmed_room.camera(48, 32))
    neighbours = [Neighbour(view, _motion(0.0, (0.1 * i, 0.0, 0.0)), 100 + i) for i in range(4)]
    used, all_submitted = [], threading.Event()

    def noted(reference, neighbours, depth_range, planes):
        assert all_submitted.wait(5.0)
        used.append(len(neighbours))
        return sweep(reference, [], depth_range, planes)

    monkeypatch.setattr(densify, "sweep", noted)
    stage = DenseStage(32, synchronous=False, prompt=prompt)
    for i in range(6):
        stage.submit(DenseTask(i, view, neighbours, (1.0, 10.0)))
    all_submitted.set()
    stage.close()
    assert stage.dropped == 0
    assert [number for number, _ in stage.results()] == list(range(6))
    assert used[-last_at_full:] == last_at_full * [4]
    assert not prompt or used[-2] == 2
    assert used[:2].count(2) >= 1


def test_flow_bears_a_change_of_exposure():
    grey = _grey(filmed_room.sideways_poses(1)[0])
    later = _grey(filmed_room.sideways_poses(2)[1])
    corners = new_corners(grey, np.zeros((0, 2), np.float32), 200)
    wanted, held = follow(grey, later, corners, corners)
    dark = (0.5 * later).astype(np.uint8)
    px, held_in_dark = follow(grey, dark, corners, corners)
    both = held & held_in_dark
    assert held_in_dark.sum() > 0.9 * held.sum()
    assert np.median(np.linalg.norm(px[both] - wanted[both], axis=1)) < 0.1


def test_flight_straight_ahead_is_not_taken_for_another_motion():
    rng = np.random.default_rng(5)
    ground = rng.uniform([-4, 0, 3], [4, 0, 14], (300, 3)) + np.array([0.0, 1.2, 0.0])
    ahead = _motion(3.0, (-0.03, 0.0, -0.12))
    a, b = _seen(ground, np.eye(4)), _seen(ground, ahead)
    candidates = two_views(a + rng.normal(0, 0.1, a.shape), b + rng.normal(0, 0.1, b.shape), K4)
    turns = [rotation_angle_rad(c.second_from_first[:3, :3].T @ ahead[:3, :3]) for c in candidates]
    # The true motion is among them although its angle is small, so that it can win.
    assert min(turns) < np.deg2rad(0.3)
    assert not candidates[int(np.argmin(turns))].wide
