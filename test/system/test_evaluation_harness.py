# SPDX-License-Identifier: Apache-2.0
"""`worldsystem eval`: known answers, other people's figures, and every layout of ground truth."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from evo.core import metrics
from evo.core.trajectory import PoseTrajectory3D

from worldsystem.cli import main
from worldsystem.evaluation import outcome, selfcheck
from worldsystem.evaluation.cloud import evaluate_cloud, read_surface
from worldsystem.evaluation.compare import evaluate
from worldsystem.evaluation.datasets import truth_at
from worldsystem.evaluation.protocols import drift_over_lengths, drift_over_time
from worldsystem.evaluation.selfcheck import self_check
from worldsystem.evaluation.truth import GroundTruth
from worldsystem_core.errors import ConfigError, SourceError
from worldsystem_core.geometry.rotation import quaternion_xyzw_from_matrix
from worldsystem_core.geometry.se3 import look_at
from worldsystem_core.surface import Mesh
from worldsystem_core.trajectory import StampedPoses, write_tum
from worldsystem_storage.mesh_files import write_glb, write_ply

START_NS = 1_305_031_102 * 10**9
FRAME_NS = 50_000_000
UP = np.array([0.0, 0.0, 1.0])


def orbit(count: int = 80) -> StampedPoses:
    """A camera that circles a wall's foot at 3 m, looking at it."""
    angle = np.linspace(0.0, 2.0, count)
    eyes = np.stack([3.0 * np.sin(angle), -3.0 * np.cos(angle), 1.0 + 0.3 * angle], axis=1)
    poses = np.array([look_at(eye, np.zeros(3), UP) for eye in eyes])
    return StampedPoses(START_NS + np.arange(count, dtype=np.int64) * FRAME_NS, poses)


def shaken(poses: StampedPoses, sigma: float) -> StampedPoses:
    noisy = poses.world_from_cam.copy()
    noisy[:, :3, 3] += np.random.default_rng(4).normal(0.0, sigma, (len(poses), 3))
    return StampedPoses(poses.stamps_ns, noisy)


def of_evo(poses: StampedPoses) -> PoseTrajectory3D:
    xyzw = np.array([quaternion_xyzw_from_matrix(p[:3, :3]) for p in poses.world_from_cam])
    return PoseTrajectory3D(
        poses.positions.copy(), np.roll(xyzw, 1, axis=1), poses.stamps_ns * 1e-9
    )


def test_every_known_answer_comes_out():
    wrong = [check for check in self_check() if not check.passed]
    assert wrong == []


def test_nothing_is_reported_when_the_self_check_fails(monkeypatch, capsys):
    broken = selfcheck.Check("one that fails", 1.0, 2.0, 0.1)
    monkeypatch.setattr(selfcheck, "self_check", lambda: (broken,))
    assert main(["eval", "nowhere", "nothing"]) == 1
    assert "WRONG" in capsys.readouterr().out


def test_relative_errors_over_time_agree_with_evo():
    truth, estimated = orbit(), shaken(orbit(), 0.01)
    ours = drift_over_time(estimated, truth, 0.5)
    for relation, value in (
        (metrics.PoseRelation.translation_part, ours.shift),
        (metrics.PoseRelation.rotation_angle_rad, ours.turn_rad),
    ):
        rpe = metrics.RPE(relation, 10, metrics.Unit.frames, all_pairs=True)
        rpe.process_data((of_evo(truth), of_evo(estimated)))
        assert value == pytest.approx(rpe.get_statistic(metrics.StatisticsType.rmse), abs=1e-6)


def test_alignment_errors_and_scale_agree_with_evo():
    truth, small = orbit(), shaken(orbit(), 0.01)
    small.world_from_cam[:, :3, 3] *= 0.8
    found = evaluate(small, Mesh.empty(), GroundTruth(poses=truth))
    for with_scale, value in ((True, found.path.ate_sim3), (False, found.path.ate_se3)):
        reference, moved = of_evo(truth), copy.deepcopy(of_evo(small))
        _, _, scale = moved.align(reference, correct_scale=with_scale)
        ape = metrics.APE(metrics.PoseRelation.translation_part)
        ape.process_data((reference, moved))
        assert value == pytest.approx(ape.get_statistic(metrics.StatisticsType.rmse), rel=1e-6)
        if with_scale:
            assert found.scale_error_percent == pytest.approx(100 * abs(1 / scale - 1), abs=1e-6)


def test_paths_too_short_for_a_protocol_have_no_figure():
    truth = orbit(12)
    assert np.isnan(drift_over_lengths(truth, truth).shift_percent)
    assert np.isnan(drift_over_time(truth, truth, 60.0).shift)
    assert drift_over_time(truth, truth, 60.0).pieces == 0


def test_an_empty_estimate_scores_nothing_and_unknown_points_are_left_out():
    truth = np.random.default_rng(0).uniform(0, 1, (500, 3))
    nothing = evaluate_cloud(np.zeros((0, 3)), truth, (0.05,))
    assert nothing.fscore == (0.0,)
    assert np.isnan(nothing.accuracy_mean)
    holes = np.vstack([truth, np.full((9, 3), np.nan)])
    assert evaluate_cloud(holes, truth, (0.05,)).n_estimated == 500
    with pytest.raises(ValueError, match="positive"):
        evaluate_cloud(truth, truth, (0.0,))


def test_far_off_pieces_are_told_but_not_judged():
    truth = np.random.default_rng(0).uniform(0, 1, (2000, 3))
    stray = np.vstack([truth, truth[:500] + 40.0])
    error = evaluate_cloud(stray, truth, (0.05,))
    assert error.judged_share == pytest.approx(0.8)
    assert error.precision == (1.0,)


def _wall(half: float = 1.0) -> Mesh:
    corners = np.array([[-1, 0, -1], [1, 0, -1], [1, 0, 1], [-1, 0, 1]], np.float32) * half
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    return Mesh(vertices=corners, colours=np.full((4, 3), 200, np.uint8), faces=faces)


def test_the_command_writes_figures_plots_and_a_coloured_cloud(tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    truth = orbit()
    write_tum(run / "trajectory.tum", shaken(truth, 0.002))
    write_ply(run / "mesh.ply", _wall())
    write_tum(tmp_path / "truth.tum", truth)
    write_ply(tmp_path / "wall.ply", _wall())
    out = tmp_path / "out"
    words = [str(run), str(tmp_path / "truth.tum"), "--truth-mesh", str(tmp_path / "wall.ply")]
    assert main(["eval", *words, "--threshold", "0.02", "0.1", "--out", str(out)]) == 0
    content = json.loads((out / "evaluation.json").read_text())
    assert content["path"]["matched"] == len(truth)
    assert content["path"]["ate_sim3"] < 0.006
    assert content["surface"][0]["fscore"] > 0.95
    assert [surface["threshold"] for surface in content["surface"]] == [0.02, 0.1]
    for name in ("trajectory.png", "error_over_time.png", "error_along_path.png"):
        assert cv2.imdecode(np.frombuffer((out / name).read_bytes(), np.uint8), 1) is not None
    assert (out / "error_cloud.ply").stat().st_size > 100
    assert "ATE, Sim(3) aligned" in capsys.readouterr().out


def test_stamps_of_another_clock_are_said_and_can_be_shifted(tmp_path, capsys):
    truth = orbit()
    write_tum(tmp_path / "truth.tum", truth)
    late = StampedPoses(truth.stamps_ns + 7 * 10**9, truth.world_from_cam)
    write_tum(tmp_path / "late.tum", late)
    words = ["eval", str(tmp_path / "late.tum"), str(tmp_path / "truth.tum")]
    assert main(words) == 1
    assert "--offset" in capsys.readouterr().out
    assert main([*words, "--offset", "-7"]) == 0


@pytest.mark.parametrize("length", ["0", "-1", "nan", "inf", "wide"])
def test_a_threshold_that_is_no_length_is_wrong_use(length, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["eval", "a", "b", "--threshold", length])
    assert "--threshold" in capsys.readouterr().err


def test_figures_that_cannot_be_written_are_said_without_a_traceback(tmp_path, capsys):
    write_tum(tmp_path / "path.tum", orbit())
    path = str(tmp_path / "path.tum")
    assert main(["eval", path, path, "--out", f"{path}/in_a_file"]) == 2
    assert path in capsys.readouterr().err


def test_a_surface_of_several_materials_is_read_whole(tmp_path):
    corners = "".join(f"v {x} {y} 0\n" for x, y in ((0, 0), (1, 0), (1, 1), (0, 1)))
    (tmp_path / "two.mtl").write_text("newmtl a\nKd 1 0 0\nnewmtl b\nKd 0 1 0\n")
    (tmp_path / "two.obj").write_text(
        f"mtllib two.mtl\n{corners}usemtl a\nf 1 2 3\nusemtl b\nf 1 3 4\n"
    )
    surface = read_surface(tmp_path / "two.obj")
    assert len(surface.faces) == 2
    assert surface.vertices.max(axis=0).tolist() == [1.0, 1.0, 0.0]


def test_a_surface_of_an_unknown_kind_is_refused_by_name(tmp_path):
    (tmp_path / "cloud.pcd").write_text("VERSION .7\n")
    with pytest.raises(SourceError, match=r"cloud\.pcd"):
        read_surface(tmp_path / "cloud.pcd")


def test_what_is_missing_is_named(tmp_path, capsys):
    assert main(["eval"]) == 2
    assert main(["eval", str(tmp_path / "no.tum"), str(tmp_path)]) == 2
    assert "no estimated trajectory" in capsys.readouterr().err
    with pytest.raises(SourceError, match="Replica"):
        truth_at(tmp_path)


def _depth_of_wall(pose: np.ndarray, K: tuple[float, ...], size: tuple[int, int]) -> np.ndarray:
    """Exact z-depth [m] of the plane y = 0."""
    v, u = np.mgrid[: size[1], : size[0]]
    rays = np.stack([(u - K[2]) / K[0], (v - K[3]) / K[1], np.ones(u.shape)], -1)
    return -pose[1, 3] / (rays @ pose[:3, :3].T)[..., 1]


def _save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


def _tum(folder: Path, poses: StampedPoses) -> Path:
    folder /= "rgbd_dataset_freiburg3_wall"
    rgb, depth = [], []
    K = (535.4 / 8, 539.2 / 8, 320.6 / 8 - 0.5, 248.1 / 8 - 0.5)
    for i, pose in enumerate(poses.world_from_cam):
        stamp = f"{int(poses.stamps_ns[i]) / 1e9:.6f}"
        counts = 5000 * _depth_of_wall(pose, K, (80, 60))
        _save(folder / f"depth/{i}.png", counts.clip(0, 65535).astype(np.uint16))
        rgb.append(f"{stamp} rgb/{i}.png")
        depth.append(f"{stamp} depth/{i}.png")
    (folder / "rgb.txt").write_text("\n".join(rgb))
    (folder / "depth.txt").write_text("\n".join(depth))
    write_tum(folder / "groundtruth.txt", poses)
    return folder


def _seven_scenes(folder: Path, poses: StampedPoses) -> Path:
    K = (585.0 / 8, 585.0 / 8, 320.5 / 8 - 0.5, 240.5 / 8 - 0.5)
    for i, pose in enumerate(poses.world_from_cam):
        counts = 1000 * _depth_of_wall(pose, K, (80, 60))
        _save(folder / f"frame-{i:06d}.color.png", np.zeros((60, 80, 3), np.uint8))
        _save(folder / f"frame-{i:06d}.depth.png", counts.clip(0, 65535).astype(np.uint16))
        np.savetxt(folder / f"frame-{i:06d}.pose.txt", pose)
    return folder


def _replica(folder: Path, poses: StampedPoses) -> Path:
    scene = folder / "office9"
    camera = {"w": 80, "h": 60, "fx": 60.0, "fy": 60.0, "cx": 39.5, "cy": 29.5, "scale": 6553.5}
    for i, pose in enumerate(poses.world_from_cam):
        counts = 6553.5 * _depth_of_wall(pose, (60.0, 60.0, 39.5, 29.5), (80, 60))
        _save(scene / f"results/frame{i:06d}.jpg", np.zeros((60, 80, 3), np.uint8))
        _save(scene / f"results/depth{i:06d}.png", counts.clip(0, 65535).astype(np.uint16))
    np.savetxt(scene / "traj.txt", poses.world_from_cam.reshape(-1, 16))
    (folder / "cam_params.json").write_text(json.dumps({"camera": camera}))
    write_ply(folder / "office9_mesh.ply", _wall(3.0))
    return scene


def _kitti(folder: Path, poses: StampedPoses) -> Path:
    sequence = folder / "sequences" / "04"
    for i in range(len(poses)):
        _save(sequence / f"image_2/{i:06d}.png", np.zeros((20, 60, 3), np.uint8))
    times = (poses.stamps_ns - poses.stamps_ns[0]) / 1e9
    (sequence / "times.txt").write_text("\n".join(f"{t:.6e}" for t in times))
    (sequence / "calib.txt").write_text("P2: 60 0 30 0 0 60 10 0 0 0 1 0\n")
    (folder / "poses").mkdir()
    np.savetxt(folder / "poses" / "04.txt", poses.world_from_cam[:, :3].reshape(-1, 12))
    return sequence


def _euroc(folder: Path, poses: StampedPoses) -> Path:
    root = folder / "V1_01" / "mav0"
    frames, truth = ["#timestamp,filename"], ["#timestamp,p,q"]
    for stamp, pose in zip(poses.stamps_ns.tolist(), poses.world_from_cam, strict=True):
        x, y, z, w = quaternion_xyzw_from_matrix(pose[:3, :3])
        frames.append(f"{stamp},{stamp}.png")
        numbers = (*pose[:3, 3], w, x, y, z, 0, 0, 0)
        truth.append(",".join([str(stamp), *(f"{number:.12g}" for number in numbers)]))
    (root / "cam0").mkdir(parents=True)
    (root / "cam0" / "data.csv").write_text("\n".join(frames))
    (root / "cam0" / "sensor.yaml").write_text(
        "T_BS:\n  data: [1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1]\nresolution: [80, 60]\n"
        "intrinsics: [60, 60, 40, 30]\ndistortion_coefficients: [0, 0, 0, 0]\n"
    )
    (root / "state_groundtruth_estimate0").mkdir()
    (root / "state_groundtruth_estimate0" / "data.csv").write_text("\n".join(truth))
    return root.parent


@pytest.mark.parametrize("layout", [_tum, _seven_scenes, _replica, _kitti, _euroc])
def test_every_layout_gives_its_true_path(tmp_path, layout):
    poses = orbit(24)
    truth = truth_at(layout(tmp_path, poses))
    assert len(truth.poses) == len(poses)
    assert np.abs(truth.poses.world_from_cam - poses.world_from_cam).max() < 1e-6
    same = StampedPoses(truth.poses.stamps_ns, poses.world_from_cam)
    assert evaluate(same, Mesh.empty(), truth).path.ate_se3 < 1e-6


@pytest.mark.parametrize("layout", [_tum, _euroc])
def test_the_share_of_tracked_frames_is_one_of_pictures_not_of_true_poses(tmp_path, layout):
    """True poses come several times as often as pictures in both of these data sets."""
    poses = orbit(24)
    folder = layout(tmp_path, poses)
    for name in ("rgb.txt", "mav0/cam0/data.csv"):
        if (folder / name).exists():
            lines = (folder / name).read_text().splitlines()
            head = [line for line in lines if line.startswith("#")]
            pictures = [line for line in lines if not line.startswith("#")]
            (folder / name).write_text("\n".join([*head, *pictures[::4]]))
    seen = StampedPoses(poses.stamps_ns[::4], poses.world_from_cam[::4])
    assert evaluate(seen, Mesh.empty(), truth_at(folder)).path.tracked_share == 1.0


def test_an_unknown_alignment_is_refused():
    poses = orbit(24)
    with pytest.raises(ConfigError, match=r"'sim2' is not known.*se3"):
        evaluate(poses, Mesh.empty(), GroundTruth(poses=poses), alignment="sim2")


@pytest.mark.parametrize("layout", [_tum, _seven_scenes, _replica])
def test_depth_pictures_give_the_true_surface(tmp_path, layout):
    truth = truth_at(layout(tmp_path, orbit(24)))
    assert truth.seen_points is not None
    assert len(truth.seen_points) > 1000
    off = np.abs(truth.seen_points[:, 1])
    assert np.percentile(off, 95) < 0.003  # depth in whole millimetres, or finer
    assert (truth.mesh is not None) == (layout is _replica)


@pytest.mark.parametrize("as_mesh", [True, False])
def test_a_point_of_the_true_surface_without_a_place_is_left_out(tmp_path, as_mesh):
    wall, path = _wall(), tmp_path / "scan.ply"
    marked = Mesh(
        vertices=np.vstack([wall.vertices, np.full((1, 3), 123.0, np.float32)]),
        colours=np.full((5, 3), 200, np.uint8),
        faces=wall.faces if as_mesh else wall.faces[:0],
    )
    write_ply(path, marked)
    mark, unknown = (np.full(3, value, "<f4").tobytes() for value in (123.0, np.nan))
    path.write_bytes(path.read_bytes().replace(mark, unknown))
    write_tum(tmp_path / "truth.tum", orbit())
    truth = truth_at(tmp_path / "truth.tum", mesh=path)
    assert truth.scene_diameter == pytest.approx(8**0.5)
    found = evaluate(orbit(), wall, truth)
    if as_mesh:
        assert found.surfaces[0].fscore == pytest.approx(1.0)
    else:
        assert found.cloud is not None
        assert found.cloud.recall == (1.0,)


def test_the_scale_beside_a_camera_that_truly_stood_still_is_not_known():
    estimated = orbit()
    still = StampedPoses(estimated.stamps_ns, np.tile(np.eye(4), (len(estimated), 1, 1)))
    found = evaluate(estimated, Mesh.empty(), GroundTruth(poses=still))
    assert np.isnan(found.scale_error_percent)
    assert found.path.ate_se3 > 1.0


def test_an_estimate_without_rotations_is_refused_by_name(tmp_path, capsys):
    path = tmp_path / "gps.csv"
    path.write_text("t_s,n_m,e_m,d_m\n0,0,0,0\n1,1,0,0\n2,1,1,0\n3,0,1,0\n")
    assert main(["eval", str(path), str(path)]) == 2
    assert "gps.csv tells no rotations" in capsys.readouterr().err


def test_a_true_mesh_of_few_triangles_is_asked_for_all_over_and_not_at_its_corners(tmp_path):
    write_ply(tmp_path / "wall.ply", _wall())
    write_tum(tmp_path / "truth.tum", orbit())
    truth = truth_at(tmp_path / "truth.tum", mesh=tmp_path / "wall.ply")
    found = evaluate(orbit(), _wall(0.5), truth, thresholds=(0.05,))
    assert found.surfaces[0].recall == pytest.approx(0.302, abs=0.01)  # a quarter, and 5 cm more


def test_the_plots_of_errors_are_of_the_path_as_it_was_placed(tmp_path, monkeypatch):
    shown = []

    def chart(_, errors, unit):
        shown.append(errors)
        return b""

    monkeypatch.setattr(outcome, "error_chart", chart)
    monkeypatch.setattr(outcome, "error_path_chart", chart)
    truth, half = orbit(), orbit()
    half.world_from_cam[:, :3, 3] *= 0.5
    found = evaluate(half, Mesh.empty(), GroundTruth(poses=truth), alignment="se3")
    outcome.write_evaluation(found, tmp_path)
    assert found.path.ate_se3 > 0.1
    for errors in shown:
        assert np.sqrt(np.mean(errors**2)) == pytest.approx(found.path.ate_se3)
    assert len(shown) == 2


def test_a_glb_of_ours_is_refused_since_it_was_turned(tmp_path):
    write_glb(tmp_path / "mesh.glb", _wall())
    with pytest.raises(SourceError, match=r"mesh\.glb was turned to y up.*ply"):
        read_surface(tmp_path / "mesh.glb")
