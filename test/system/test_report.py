# SPDX-License-Identifier: Apache-2.0
"""The report of a synthetic run holds all its parts; whatever a run lacks, a page still comes."""

import base64
import json
import re
import time

import cv2
import numpy as np
import open3d as o3d
import pytest

from worldsystem.evaluation.surface import area_samples, transformed
from worldsystem.evaluation.truth import GroundTruth
from worldsystem.outputs import write_outputs
from worldsystem.report.page import write_report
from worldsystem.report.record import GLASS_TO_MAP, RunRecord, RunSample, Targets
from worldsystem.report.summary import summarise
from worldsystem_core.geometry.se3 import look_at
from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.latency import LatencyHistogram
from worldsystem_core.ledger import LedgerState
from worldsystem_core.reconstruction import ScaleState
from worldsystem_core.surface import Mesh
from worldsystem_core.trajectory import StampedPoses
from worldsystem_storage.errors import StorageError

START_NS = 1_790_000_000 * 10**9
WORLD_FROM_TRUTH = Sim3(0.2, np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]), np.array([3.0, 1, 2]))
PICTURES = {
    "trajectory.png", "trajectory_error.png", "mesh_a.png", "mesh_b.png", "truth_a.png",
    "truth_b.png", "accuracy_a.png", "accuracy_b.png", "accuracy_scale.png", "latency.png",
    "throughput.png",
}  # fmt: skip

LIGHT = {"truth": None, "mesh": Mesh.empty()}  # for tests that look at no picture of the mesh


def village(subdivisions: int = 0) -> Mesh:
    """A ground plate with three coloured houses and a ball, 20 m wide, z up."""
    parts = [((-10, -10, -0.2), (20, 20, 0.2), (0.45, 0.55, 0.35))]
    parts += [
        ((-6, -5, 0), (4, 3, 3), (0.75, 0.35, 0.25)),
        ((2, -6, 0), (3, 5, 4), (0.8, 0.7, 0.5)),
    ]
    parts += [((-3, 3, 0), (5, 3, 2), (0.35, 0.45, 0.65))]
    whole = o3d.geometry.TriangleMesh()
    for corner, size, colour in parts:
        box = o3d.geometry.TriangleMesh.create_box(*size).translate(corner)
        whole += box.paint_uniform_color(colour)
    ball = o3d.geometry.TriangleMesh.create_sphere(1.5, 30).translate((6, 5, 1.5))
    whole += ball.paint_uniform_color((0.9, 0.6, 0.2))
    whole = whole.subdivide_midpoint(subdivisions) if subdivisions else whole
    return Mesh(
        vertices=np.asarray(whole.vertices).astype(np.float32),
        colours=(255 * np.asarray(whole.vertex_colors)).astype(np.uint8),
        faces=np.asarray(whole.triangles).astype(np.int32),
    )


def orbit(n: int = 240) -> StampedPoses:
    angle = np.linspace(0, 1.8 * np.pi, n)
    eyes = np.stack([13 * np.cos(angle), 13 * np.sin(angle), 6 + np.sin(2 * angle)], axis=1)
    poses = [look_at(eye, np.zeros(3), np.array([0.0, 0, 1])) for eye in eyes]
    return StampedPoses(START_NS + np.arange(n, dtype=np.int64) * 33_333_333, np.array(poses))


def truth(mesh: Mesh) -> GroundTruth:
    return GroundTruth(
        poses=orbit(), mesh=mesh, seen_points=area_samples(mesh, 20_000), up=(0.0, 0.0, 1.0)
    )


def noisy_run(folder, subdivisions: int = 2, **changes) -> RunRecord:
    """A run in its own frame and scale, with a path 5 cm and a surface 3 cm off."""
    rng = np.random.default_rng(4)
    real = village(subdivisions)
    poses = orbit()
    poses.world_from_cam[:, :3, 3] += rng.normal(0, 0.05, (len(poses), 3))
    poses = StampedPoses(
        poses.stamps_ns, np.array([WORLD_FROM_TRUTH.apply_pose(p) for p in poses.world_from_cam])
    )
    rough = real.vertices + rng.normal(0, 0.03, real.vertices.shape).astype(np.float32)
    surface = Mesh(vertices=rough, colours=real.colours, faces=real.faces)
    latency = LatencyHistogram()
    for duration_s in rng.gamma(4.0, 0.05, 230):
        latency.add(float(duration_s))
    fields = {
        "folder": folder,
        "source": "synthetic orbit",
        "backend": "geometric",
        "started_ns": START_NS,
        "ended_ns": START_NS + 8 * 10**9,
        "poses": poses,
        "mesh": transformed(surface, WORLD_FROM_TRUTH),
        "keyframe_count": 24,
        "ledgers": (
            LedgerState("ingest", 240, 236, {"lost_on_link": 4}),
            LedgerState("slam3r", 236, 230, {"stale": 6}),
            LedgerState("mesh", 24, 24, {}),
        ),
        "expected": {"slam3r": 236, "mesh": 24},
        "frames_sent": 240,
        "latency_counts": {GLASS_TO_MAP: latency.counts()},
        "samples": tuple(
            RunSample(
                t_s=0.5 * i, fps=28 + np.sin(i), keyframes=2 * i, triangles=900 * i, latency_s=0.2
            )
            for i in range(16)
        ),
        "truth": truth(village()),
        "versions": {"Python": "3.11"},
        "commit": "abc1234",
    }
    return RunRecord(**{**fields, **changes})


def results(folder) -> dict[str, float | None]:
    content = json.loads((folder / "summary.json").read_text())
    return {row["id"]: row["value"] for row in content["results"]}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    (folder / "video.mp4").write_bytes(b"x" * 2_500_000)
    return folder, write_report(noisy_run(folder), folder)


def test_the_report_holds_every_part_and_every_picture(written):
    folder, page = written
    text = page.read_text()
    for part in ("verdict", "notes", "mesh", "path", "ledger", "speed", "facts", "files"):
        assert f'id="{part}"' in text, part
    assert {path.name for path in (folder / "pictures").iterdir()} == PICTURES
    assert set(re.findall(r'data-name="([^"]+)"', text)) == PICTURES
    assert "video.mp4" in text
    assert "2.5 MB" in text
    assert "lost on link 4" in text
    assert "abc1234" in text


def test_the_page_needs_no_other_file_and_no_network(written):
    text = written[1].read_text()
    sources = re.findall(r'(?:src|href)="([^"]{0,40})', text)
    assert sources
    assert all(source.startswith("data:image/png") or source == "video.mp4" for source in sources)
    assert "http" not in re.sub(r'"data:[^"]+"', "", text)


@pytest.mark.parametrize("name", sorted(PICTURES))
def test_no_picture_is_blank(written, name):
    picture = cv2.imread(str(written[0] / "pictures" / name), cv2.IMREAD_UNCHANGED)
    assert picture.shape[2] == 4
    covered = (picture[..., 3] > 0).mean()
    assert covered > 0.01, f"{name} shows nothing"
    assert picture[picture[..., 3] > 128][:, :3].std() > 5, f"{name} is one flat colour"


def test_the_embedded_pictures_are_the_saved_ones(written):
    folder, page = written
    found = re.findall(
        r'src="data:image/png;base64,([^"]+)"[^>]*data-name="([^"]+)"', page.read_text()
    )
    assert {name for _, name in found} == PICTURES
    for encoded, name in found:
        assert base64.b64decode(encoded) == (folder / "pictures" / name).read_bytes()


def test_the_summary_has_the_figures_of_the_demo(written):
    values = results(written[0])
    path = 13 * 1.8 * np.pi
    assert values["demo.ate_percent"] == pytest.approx(100 * 0.05 * np.sqrt(3) / path, rel=0.15)
    assert values["demo.mesh_fscore"] > 0.95
    assert values["demo.fps"] == pytest.approx(230 / 8)
    assert 300 < values["demo.glass_to_map_p95_ms"] < 500
    assert values["demo.tracked_percent"] == 100.0
    assert values["demo.unexplained_frames"] == 0


def test_frames_that_vanish_between_stages_are_counted_and_named(tmp_path):
    run = noisy_run(tmp_path, frames_sent=243, expected={"slam3r": 237})
    assert run.unexplained_frames == 3 + 1
    notes = " ".join(summarise(run).notes)
    assert "3 frames never arrived at stage 'ingest'" in notes
    assert "1 frames never arrived at stage 'slam3r'" in notes


@pytest.mark.parametrize("sent", [240, None])
def test_frames_left_out_by_a_frame_step_are_none_that_should_have_been_tracked(tmp_path, sent):
    third = StampedPoses(orbit().stamps_ns[::3], orbit().world_from_cam[::3])
    ledgers = (
        LedgerState("ingest", 240, 240, {}),
        LedgerState("slam3r", 240, 80, {"skipped": 160}),
    )
    run = noisy_run(tmp_path, poses=third, ledgers=ledgers, frames_sent=sent, **LIGHT)
    (share,) = [v.value for v in summarise(run).verdicts if v.id == "demo.tracked_percent"]
    assert share == 100.0


def test_frames_still_in_flight_are_explained(tmp_path):
    run = noisy_run(tmp_path, ledgers=(LedgerState("ingest", 240, 200, {"late": 30}),))
    assert run.unexplained_frames == 0
    assert "10 frames were still in stage 'ingest'" in " ".join(summarise(run).notes)


def test_a_stage_that_settles_more_than_it_took_does_not_add_up(tmp_path):
    run = noisy_run(tmp_path, ledgers=(LedgerState("ingest", 240, 242, {}),), expected={}, **LIGHT)
    assert run.unexplained_frames == 2
    assert '<span class="no">' in write_report(run, tmp_path).read_text()


def test_a_frame_that_a_stage_settled_twice_is_a_cross_in_its_row(tmp_path):
    run = noisy_run(tmp_path, violations={"slam3r": 1}, **LIGHT)
    assert run.unexplained_frames == 1
    assert write_report(run, tmp_path).read_text().count('<span class="no">') == 1


def test_without_truth_the_page_shows_the_path_and_the_mesh_unjudged(tmp_path):
    page = write_report(noisy_run(tmp_path, truth=None), tmp_path / "report")
    names = set(re.findall(r'data-name="([^"]+)"', page.read_text()))
    assert names == {"trajectory.png", "mesh_a.png", "mesh_b.png", "latency.png", "throughput.png"}
    assert results(tmp_path / "report")["demo.ate_percent"] is None
    assert "not judged" in page.read_text()
    assert "scale is unknown" in page.read_text()


def test_a_truth_of_positions_alone_judges_the_path_alone(tmp_path):
    poses = orbit()
    poses.world_from_cam[:, :3, :3] = np.nan
    page = write_report(noisy_run(tmp_path, truth=GroundTruth(poses=poses)), tmp_path)
    values = results(tmp_path)
    assert values["demo.ate_percent"] < 1.0
    assert values["demo.mesh_fscore"] is None
    assert "truth_a.png" not in page.read_text()


def test_a_run_that_produced_nothing_still_gets_its_page(tmp_path):
    nothing = StampedPoses(np.zeros(0, np.int64), np.zeros((0, 4, 4)))
    run = noisy_run(
        tmp_path, poses=nothing, mesh=Mesh.empty(), ledgers=(), samples=(), latency_counts={},
        frames_sent=None, keyframe_count=0, ended_ns=START_NS,
    )  # fmt: skip
    page = write_report(run, tmp_path)
    assert results(tmp_path)["demo.mesh_fscore"] == 0.0
    assert results(tmp_path)["demo.unexplained_frames"] is None
    assert "No surface was reconstructed" in page.read_text()
    nowhere = write_report(noisy_run(tmp_path / "gone", **LIGHT), tmp_path)
    assert "no mesh to show" in nowhere.read_text()


def test_tiles_are_coloured_by_their_targets(tmp_path):
    strict = Targets(ate_percent=0.001, fps=1.0)
    states = {v.id: v.state for v in summarise(noisy_run(tmp_path, targets=strict)).verdicts}
    assert states["demo.ate_percent"] == "bad"
    assert states["demo.fps"] == "good"


def test_names_from_outside_are_escaped(tmp_path):
    page = write_report(noisy_run(tmp_path, source="<script>x</script>", **LIGHT), tmp_path)
    assert "<script>" not in page.read_text()


def test_a_report_and_its_summary_show_no_password(tmp_path):
    page = write_report(noisy_run(tmp_path, source="rtsp://a:s3kret@b", **LIGHT), tmp_path)
    for text in (page.read_text(), (tmp_path / "summary.json").read_text()):
        assert "rtsp://a:***@b" in text
        assert "s3kret" not in text


def test_a_metric_map_has_metres(tmp_path):
    run = noisy_run(tmp_path, scale=ScaleState.METRIC, **LIGHT)
    notes = " ".join(summarise(run).notes)
    assert "scale is unknown" not in notes
    assert "metres" in write_report(run, tmp_path).read_text()


@pytest.mark.slow
def test_a_mesh_of_300_000_triangles_is_reported_within_25_seconds(tmp_path):
    run = noisy_run(tmp_path, subdivisions=4)
    assert len(run.mesh.faces) >= 300_000
    start = time.perf_counter()
    write_report(run, tmp_path)
    assert time.perf_counter() - start < 25.0


@pytest.mark.parametrize("lost", ["mesh.ply", "mesh.glb", "trajectory.tum"])
def test_what_cannot_be_written_costs_itself_alone(tmp_path, full_disk, lost):
    """As on a disk that is full after hours: the report is small, and is what tells of it."""
    folder = tmp_path / "run"
    full_disk(lost)
    with pytest.raises(StorageError, match="No space left on device"):
        write_outputs(noisy_run(folder, truth=None))
    assert "No space left on device" in (folder / "report.html").read_text()
    assert (folder / "summary.json").exists()
    for name in {"mesh.ply", "mesh.glb", "trajectory.tum"} - {lost}:
        assert (folder / name).exists()
    assert not list(folder.glob(f"*{lost}*")) + list(folder.glob(f".*{lost}*"))


def test_a_run_without_a_surface_leaves_none_of_an_earlier_run_in_its_folder(tmp_path):
    write_outputs(noisy_run(tmp_path, subdivisions=0, truth=None), report=False)
    assert {path.name for path in tmp_path.glob("mesh.*")} == {"mesh.ply", "mesh.glb"}
    write_outputs(noisy_run(tmp_path, **LIGHT), report=False)
    assert not list(tmp_path.glob("mesh.*"))
