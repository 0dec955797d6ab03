# SPDX-License-Identifier: Apache-2.0
"""The back-end's parts by themselves: poses, focal length, pace, intake, buffer, start."""

from __future__ import annotations

from dataclasses import replace

import filmed_room
import numpy as np
import pytest
import torch
from golden import golden_arrays
from true_networks import PX, TrueNetworks

from worldsystem_core.frames import Camera, Frame
from worldsystem_core.geometry.pinhole import pointmap_from_depth
from worldsystem_core.geometry.se3 import inverse, look_at, rotation_angle_rad, transform
from worldsystem_slam3r.slam3r.bootstrap import baseline
from worldsystem_slam3r.slam3r.buffer import SceneBuffer
from worldsystem_slam3r.slam3r.intake import Fault, Intake
from worldsystem_slam3r.slam3r.intrinsics import FocalEstimate, weiszfeld_focal_px
from worldsystem_slam3r.slam3r.live import LiveScene, LiveSettings
from worldsystem_slam3r.slam3r.pace import Pace, Viewpoint, advance
from worldsystem_slam3r.slam3r.pose import Sample, place, robust_sim3
from worldsystem_slam3r.slam3r.scene_start import find_start
from worldsystem_slam3r.slam3r.views import View, Window, mean_distance

DOWN = np.array([0.0, -1.0, 0.0])


def pixels(side: int) -> np.ndarray:
    v, u = np.mgrid[:side, :side]
    return np.stack([u, v], axis=-1).reshape(-1, 2).astype(float)


@pytest.mark.parametrize("kind", ["clean", "noisy", "zeroed"])
def test_the_focal_length_is_the_golden_one(kind):
    arrays = golden_arrays("geometry")
    points = arrays[f"focal/pts_{kind}"].reshape(-1, 3)
    focal = weiszfeld_focal_px(points, pixels(56) - arrays["focal/pp"])
    assert focal == pytest.approx(float(arrays[f"focal/{kind}_weiszfeld"][0]), rel=1e-5)
    assert focal == pytest.approx(float(arrays["focal/true"]), rel=0.01)


def test_points_that_say_nothing_give_no_focal_length():
    assert np.isnan(weiszfeld_focal_px(np.zeros((9, 3)), np.ones((9, 2))))
    assert np.isnan(weiszfeld_focal_px(np.zeros((0, 3)), np.ones((0, 2))))
    estimate = FocalEstimate(224)
    for nonsense in (np.nan, np.inf, -200.0, 3.0, 1e6):
        estimate.add(nonsense)
    assert estimate.camera is None


def test_one_wild_focal_length_does_not_move_the_median():
    estimate = FocalEstimate(224)
    for focal in (200.0, 201.0, 600.0, 199.0, 200.5):
        estimate.add(focal)
    assert estimate.camera.fx == 200.5
    assert estimate.camera.cx == 111.5
    estimate.forget()
    assert estimate.camera is None


def test_the_similarity_is_the_golden_truth():
    arrays = golden_arrays("geometry")
    scene = arrays["sim3/pts_world"].reshape(-1, 3).astype(float)
    local = arrays["sim3/pts_cam"].reshape(-1, 3).astype(float)
    fit, agreement = robust_sim3(Sample(pixels(56), local, scene, np.ones(len(local))))
    assert fit.scale == pytest.approx(float(arrays["sim3/scale_true"]), rel=2e-3)
    turn = arrays["sim3/R_true"].T @ fit.rotation
    assert rotation_angle_rad(turn) < np.deg2rad(0.05)
    np.testing.assert_allclose(fit.translation, arrays["sim3/t_true"], atol=3e-3)
    assert agreement > 0.9


def golden_pose_sample() -> tuple[Sample, Camera, np.ndarray, np.ndarray]:
    arrays = golden_arrays("geometry")
    scene = arrays["pose/pts_world_noisy"].reshape(-1, 3).astype(float)
    truth = arrays["pose/c2w_true"]
    local = transform(inverse(truth), scene)
    camera = Camera.from_K(arrays["pose/K"], 56, 56)
    sample = Sample(pixels(56), local, scene, np.ones(len(scene)))
    return sample, camera, truth, arrays["pose/c2w_upstream"]


def test_the_pose_is_the_golden_one():
    sample, camera, truth, upstream = golden_pose_sample()
    found = place(sample, camera)
    for wanted in (truth, upstream):
        turn = wanted[:3, :3].T @ found.scene_from_cam[:3, :3]
        assert rotation_angle_rad(turn) < np.deg2rad(0.15)
        assert np.linalg.norm(wanted[:3, 3] - found.scene_from_cam[:3, 3]) < 0.01
    assert found.inlier_share > 0.9


def test_the_pose_is_found_by_pixels_where_its_own_geometry_misleads():
    sample, camera, truth, _ = golden_pose_sample()
    turned = sample.local @ np.diag([-1.0, -1.0, 1.0])
    found = place(Sample(sample.uv, turned, sample.scene, sample.weight), camera)
    turn = truth[:3, :3].T @ found.scene_from_cam[:3, :3]
    assert rotation_angle_rad(turn) < np.deg2rad(0.5)
    assert found.inlier_share > 0.85


def test_outliers_in_half_of_the_picture_leave_the_pose():
    sample, camera, truth, _ = golden_pose_sample()
    rng = np.random.default_rng(0)
    wrong = rng.random(len(sample)) < 0.4
    scene = np.where(wrong[:, None], rng.normal(size=(len(sample), 3)) * 3, sample.scene)
    found = place(Sample(sample.uv, sample.local, scene, sample.weight), camera)
    assert np.linalg.norm(truth[:3, 3] - found.scene_from_cam[:3, 3]) < 0.02
    assert found.inlier_share == pytest.approx(0.55, abs=0.1)


def test_the_covariance_is_that_of_repeated_measurements():
    sample, camera, truth, _ = golden_pose_sample()
    clean = sample.local / sample.local[:, 2:]
    rng = np.random.default_rng(1)
    kept = slice(None, None, 16)  # as many as the covariance counts as independent
    exact = (
        np.stack(
            [
                (sample.uv[kept, 0] - camera.cx) / camera.fx,
                (sample.uv[kept, 1] - camera.cy) / camera.fy,
                np.ones(len(clean[kept])),
            ],
            axis=1,
        )
        * sample.local[kept, 2:]
    )
    scene = transform(truth, exact)
    errors, told = [], []
    for _ in range(60):
        uv = sample.uv[kept] + rng.normal(size=exact[:, :2].shape) * 0.3
        found = place(Sample(uv, exact, scene, np.ones(len(uv))), camera)
        errors.append(found.scene_from_cam[:3, 3] - truth[:3, 3])
        told.append(found.covariance[:3, :3])
    measured = np.sqrt(np.trace(np.cov(np.array(errors).T)))
    assert measured == pytest.approx(np.sqrt(np.trace(np.mean(told, axis=0))), rel=0.35)


@pytest.mark.parametrize("count", [0, 5, 11])
def test_too_few_points_give_no_pose(count):
    empty = np.zeros((count, 3)) + 1.0
    camera = Camera.from_horizontal_fov(64, 64, 1.0)
    assert place(Sample(np.zeros((count, 2)), empty, empty, np.ones(count)), camera) is None


def test_points_in_one_place_give_no_pose():
    same = np.ones((50, 3))
    camera = Camera.from_horizontal_fov(64, 64, 1.0)
    assert place(Sample(np.zeros((50, 2)), same, same, np.ones(50)), camera) is None


def viewpoint(index: int, world_from_cam: np.ndarray) -> Viewpoint:
    camera = Camera.from_horizontal_fov(32, 32, 1.2)
    depth = filmed_room.render(world_from_cam, camera)[1]
    points = transform(world_from_cam, pointmap_from_depth(depth, camera)).reshape(-1, 3)
    return Viewpoint(index, world_from_cam, points.astype(float), camera)


def settled_stride(way: np.ndarray, ahead: np.ndarray, frames: int = 150) -> Pace:
    """The pace after `frames` frames that each move by `way`, looking `ahead`."""
    pace, index, last = Pace(1, 15), 0, None
    pace.start(3)
    start = -0.5 * frames * way
    while index < frames:
        eye = start + index * way
        now = viewpoint(index, look_at(eye, eye + ahead, DOWN))
        if last is not None:
            pace.adapt(advance(last, now), now.index - last.index)
        last, index = now, index + pace.stride
    return pace


def test_key_frames_come_slower_where_the_camera_is_slower():
    side, ahead = np.array([1.0, 0.0, 0.0]), np.array([0.0, 0.0, 1.0])
    slow = settled_stride(0.05 * side, ahead, frames=60).stride
    quick = settled_stride(0.2 * side, ahead, frames=35).stride
    assert 3 < quick < slow == 15


def test_a_corridor_is_noticed_and_walked_with_smaller_strides(monkeypatch):
    forward = np.array([0.0, 0.0, 1.0])
    room = settled_stride(0.03 * forward, forward)
    assert not room.in_corridor
    monkeypatch.setattr(filmed_room, "HALF_SIZE", np.array([0.9, 1.1, 40.0]))
    corridor = settled_stride(0.03 * forward, forward)
    assert corridor.in_corridor
    assert corridor.stride < room.stride


def test_a_turn_on_the_spot_has_no_parallax_but_costs_view():
    a, b = (look_at(np.zeros(3), np.array([np.sin(t), 0, np.cos(t)]), DOWN) for t in (0.0, 0.2))
    turn = advance(viewpoint(0, a), viewpoint(1, b))
    assert turn.parallax_rad < 1e-6
    assert turn.loss == pytest.approx(0.2 / 1.2, abs=0.06)
    assert not turn.still
    assert advance(viewpoint(0, a), viewpoint(1, a)).still


def picture(intake: Intake, rgb: np.ndarray, camera: Camera | None = None, id: int = 0):
    return intake.picture(Frame(id=id, stamp_ns=id, rgb=rgb, camera=camera))


def test_blank_and_repeated_pictures_are_noticed():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (120, 160, 3), dtype=np.uint8)
    intake = Intake()
    assert picture(intake, noise).fault is Fault.NONE
    assert picture(intake, noise.copy(), id=1).fault is Fault.DUPLICATE
    assert picture(intake, 255 - noise, id=2).fault is Fault.NONE
    for level in (0, 128, 255):
        assert picture(intake, np.full_like(noise, level), id=3).fault is Fault.BLANK
    assert picture(intake, noise, id=4).fault is Fault.NONE


def test_the_cut_out_keeps_the_rays_of_its_pixels():
    camera = filmed_room.camera(640, 360)
    pose = filmed_room.sideways_poses(1)[0]
    found = picture(Intake(picture_px=112), filmed_room.render(pose, camera)[0], camera)
    direct = filmed_room.render(pose, found.camera)[0]
    assert found.rgb.shape == (112, 112, 3)
    # the same rays up to the filter: a shift by one pixel would differ several times as much
    shifted = np.abs(found.rgb[:, 1:].astype(float) - direct[:, :-1]).mean()
    assert np.abs(found.rgb.astype(float) - direct).mean() < 0.4 * shifted


def test_a_given_focal_length_goes_before_the_cameras():
    camera = filmed_room.camera(640, 360)
    rgb = filmed_room.render(filmed_room.sideways_poses(1)[0], camera)[0]
    assert picture(Intake(focal_px=720.0), rgb, camera).camera.fx == pytest.approx(448, rel=0.01)
    assert picture(Intake(), rgb).camera is None


@pytest.mark.parametrize("told", [(-0.2, 0.04), (-0.2, 0.04, 0.0), (-0.2, 0.04, *[0.0] * 6)])
def test_a_picture_is_straightened_however_many_coefficients_are_told(told):
    camera = filmed_room.camera(640, 360)
    rgb = filmed_room.render(filmed_room.sideways_poses(1)[0], camera)[0]
    whole = replace(camera, distortion=(-0.2, 0.04, 0.0, 0.0, 0.0))
    found = picture(Intake(), rgb, replace(camera, distortion=told))
    assert np.array_equal(found.rgb, picture(Intake(), rgb, whole).rgb)


def test_only_another_shape_changes_the_view():
    rgb = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), dtype=np.uint8)
    intake = Intake()
    changes = []
    for i, (h, w) in enumerate([(720, 1280), (360, 640), (480, 640), (240, 320)]):
        picture(intake, np.ascontiguousarray(rgb[:h, :w]), id=i)
        changes.append(intake.view_changed)
    assert changes == [False, False, True, False]


def a_view(index: int, score: float = 5.0) -> View:
    return View(index, torch.zeros(1, 1), world_score=score, local_score=score)


@pytest.mark.parametrize("strategy", ["reservoir", "fifo"])
def test_the_buffer_keeps_to_its_bound_and_samples_the_stream(strategy):
    buffer = SceneBuffer(capacity=20, strategy=strategy, rng=np.random.RandomState(0))
    buffer.start([a_view(i) for i in range(5)], 5)
    recent: dict[int, View] = {}
    for index in range(5, 2000):
        recent[index] = a_view(index)
        recent.pop(index - 10, None)
        buffer.advance(index + 1, 2, recent)
        assert len(buffer) <= 20
    indices = [view.index for view in buffer.views]
    assert len(set(indices)) == 20
    if strategy == "fifo":
        assert min(indices) > 1950
    else:
        assert 500 < np.mean(indices) < 1500


def test_an_interval_without_a_usable_frame_adds_none():
    buffer = SceneBuffer(capacity=20, strategy="fifo", rng=np.random.RandomState(0))
    buffer.start([a_view(0)], 1)
    assert buffer.advance(11, 5, {}) == []
    assert buffer.milestone == 11


def test_the_best_frame_of_an_interval_is_taken():
    buffer = SceneBuffer(capacity=0, strategy="fifo", rng=np.random.RandomState(0))
    buffer.start([a_view(0)], 1)
    recent = {i: a_view(i, score=9.0 if i == 4 else 3.0) for i in range(1, 6)}
    assert [view.index for view in buffer.advance(6, 5, recent)] == [4]


def test_the_window_seen_from_an_anchor_is_undone_exactly():
    rng = np.random.default_rng(0)
    points = torch.tensor(rng.normal(loc=(40.0, 0.0, 90.0), size=(3, 8, 8, 3)), dtype=torch.float32)
    points[0, 0] = 0.0
    anchor = look_at(np.array([39.0, 0.0, 85.0]), np.array([40.0, 0.0, 90.0]), DOWN)
    window = Window.around(points, anchor, normalise=False)
    shown = window.from_world(points)
    known = (points != 0).any(dim=-1)
    assert (shown[~known] == 0).all()
    assert mean_distance(shown, known) == pytest.approx(1.0, rel=1e-4)
    torch.testing.assert_close(window.to_world(shown)[known], points[known], atol=1e-4, rtol=1e-5)


def test_a_start_knows_how_far_its_cameras_stand_apart():
    networks = TrueNetworks()
    camera = filmed_room.camera(160, 120)
    poses = filmed_room.sideways_poses(5, step=0.2)
    near = Intake(picture_px=PX)
    rgb = [near.picture(frame).rgb for frame in networks.film(poses, camera)]
    images = torch.from_numpy(np.stack(rgb)).permute(0, 3, 1, 2) / 127.5 - 1.0
    start = find_start(networks, list(networks.encode(images)), wanted_score=5.0)
    assert len(start) == 5
    apart = np.linalg.norm(poses[-1][:3, 3] - poses[0][:3, 3])
    reach = np.median(
        np.linalg.norm(
            pointmap_from_depth(filmed_room.render(poses[0], camera)[1], camera), axis=-1
        )
    )
    assert baseline(start) == pytest.approx(apart / reach, rel=0.15)


def test_a_scene_that_the_buffer_let_go_of_still_has_its_newest_frame():
    scene = LiveScene(TrueNetworks(), LiveSettings())
    newest = a_view(7)
    scene.recent = {3: a_view(3), 7: newest}
    assert scene.references([a_view(1000)]) == [newest]


def test_a_picture_that_changes_slowly_is_not_taken_for_a_repeated_one_for_ever():
    rgb = np.random.default_rng(0).integers(0, 200, (224, 224, 3), dtype=np.uint8)
    intake, faults = Intake(), []
    for i in range(12):
        faults.append(picture(intake, rgb.copy(), id=i).fault)
        rgb[4 * i] += 10  # one of the 56 rows that are compared: 0.18 levels on average
    assert faults == [Fault.NONE, Fault.DUPLICATE] * 6
