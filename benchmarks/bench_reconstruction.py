# SPDX-License-Identifier: Apache-2.0
"""How well and how fast the weight-free reconstruction follows simulated, rendered and real video.

Recordings are looked for in `WORLDSYSTEM_DATA`, else in `../shared/data`; figures whose recording
is not there are left out and named. Lengths are compared after Sim(3) alignment.
"""

from __future__ import annotations

import csv
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import av
import cv2
import numpy as np
from harness import QUICK, Benchmark

from worldsystem.evaluation.surface import evaluate_surface, transformed
from worldsystem.evaluation.truth_files import SEEN_CELLS_PER_DIAMETER, thinned
from worldsystem_core.frames import Camera, Frame
from worldsystem_core.geometry.pinhole import pointmap_from_depth
from worldsystem_core.geometry.se3 import transform
from worldsystem_core.geometry.sim3 import Sim3, fit_sim3
from worldsystem_core.reconstruction import (
    Event,
    MovedKeyframes,
    NewKeyframe,
    Pose,
    TrackingState,
)
from worldsystem_core.trajectory import StampedPoses, Trajectory
from worldsystem_mesh.config import MeshConfig
from worldsystem_mesh.mesher import Mesher
from worldsystem_sim.config import SimConfig
from worldsystem_sim.offline import frames as simulated_frames
from worldsystem_sim.offline import views
from worldsystem_sim.scene import build_scene
from worldsystem_slam3r.backend import create_backend
from worldsystem_slam3r.config import Slam3rConfig

DATA = Path(
    os.environ.get("WORLDSYSTEM_DATA", Path(__file__).parents[1].parent / "shared" / "data")
)
FLIGHT = SimConfig(duration_s=15.0) if QUICK else SimConfig()
WIDE_BASELINE_TRACKS = 800
SEEN_EVERY_FRAMES = 20
SEEN_STRIDE = 4
SEEN_FAR_M = 60.0
WARM_UP_FRAMES = 60

Posed = Iterator[tuple[Frame, np.ndarray]]


@dataclass(frozen=True, eq=False)
class Run:
    """What a back-end made of a film: its events, the true poses by stamp, the time per frame."""

    events: list[Event]
    truth: dict[int, np.ndarray]
    seconds: np.ndarray

    @property
    def path(self) -> StampedPoses:
        """The estimated path with all corrections."""
        trajectory = Trajectory()
        for event in self.events:
            trajectory.add(event)
        return trajectory.poses()

    @property
    def tracked_percent(self) -> float:
        """Share of the frames whose pose was found."""
        states = [event.state for event in self.events if isinstance(event, Pose)]
        return 100.0 * float(np.mean([state is TrackingState.TRACKED for state in states]))

    def aligned(self) -> tuple[Sim3, float, float]:
        """`truth_from_estimate`, the root mean square position error and the true path's length."""
        path = self.path
        wanted = np.array([self.truth[stamp][:3, 3] for stamp in path.stamps_ns.tolist()])
        fit = fit_sim3(wanted, path.positions)
        error = np.linalg.norm(fit.apply(path.positions) - wanted, axis=1)
        length = float(np.linalg.norm(np.diff(wanted, axis=0), axis=1).sum())
        return fit, float(np.sqrt((error**2).mean())), length


def run(film: Posed, **settings: object) -> Run:
    """Feed a film; decoding is not part of the time, dense depth is."""
    backend = create_backend("geometric", Slam3rConfig(**{"synchronous": True, **settings}))  # type: ignore[arg-type]
    events: list[Event] = []
    truth, seconds = {}, []
    for frame, pose in film:
        truth[frame.stamp_ns] = pose
        start = time.perf_counter()
        events += backend.feed(frame)
        seconds.append(time.perf_counter() - start)
    return Run(events + backend.finish(), truth, np.array(seconds))


def living_room() -> Posed:
    """ICL-NUIM living room 1, 211 rendered frames."""
    folder = DATA / "icl_livingroom1"
    camera = Camera(width=640, height=480, fx=525, fy=525, cx=319.5, cy=239.5)
    lines = (folder / "trajectory.log").read_text().split("\n")
    for i in range(len(lines) // 5):
        pose = np.array([[float(x) for x in row.split()] for row in lines[5 * i + 1 : 5 * i + 5]])
        rgb = cv2.cvtColor(cv2.imread(str(folder / f"rgb/{i:05d}.jpg")), cv2.COLOR_BGR2RGB)
        yield Frame(id=i, stamp_ns=i * 33_333_333, rgb=np.asarray(rgb), camera=camera), pose


def hololens() -> Posed:
    """A walk through an office with 0.1 m and 3° between frames."""
    folder = DATA / "hololens_room"
    poses = np.loadtxt(folder / "poses.txt").reshape(-1, 4, 4)
    K = np.loadtxt(folder / "K.txt")
    for i, path in enumerate(sorted((folder / "rgb").glob("*.png"))):
        rgb = np.asarray(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB))
        camera = Camera.from_K(K, rgb.shape[1], rgb.shape[0])
        yield Frame(id=i, stamp_ns=i * 200_000_000, rgb=rgb, camera=camera), poses[i]


def karma() -> Posed:
    """A drone along a cliff; the camera is not known."""
    with av.open(str(DATA / "gopro_karma_drone" / "karma.mp4")) as container:
        for i, picture in enumerate(container.decode(video=0)):
            rgb = picture.to_ndarray(format="rgb24")
            yield Frame(id=i, stamp_ns=i * 33_366_667, rgb=rgb), np.eye(4)


def camera_withheld(film: Posed) -> Posed:
    """The same film of a camera that nobody knows."""
    for frame, pose in film:
        yield replace(frame, camera=None), pose


def coverage_percent(result: Run) -> float:
    """Share of the keyframes' pixels that got a depth."""
    keyframes = [event.keyframe for event in result.events if isinstance(event, NewKeyframe)]
    return 100.0 * float(np.mean([(keyframe.confidence > 0).mean() for keyframe in keyframes]))


def speed_correlation(path: StampedPoses) -> float:
    """Correlation of the estimated speed over half a second with the autopilot's."""
    with (DATA / "gopro_karma_drone" / "telemetry_local_ned.csv").open() as file:
        rows = list(csv.DictReader(file))
    speeds, wanted = [], []
    stamps_s = path.stamps_ns * 1e-9
    for row in rows:
        middle = float(row["t_video_approx_s"])
        a, b = np.searchsorted(stamps_s, [middle - 0.25, middle + 0.25])
        b = min(int(b), len(stamps_s) - 1)
        if b - a > 5:
            distance = np.linalg.norm(path.positions[b] - path.positions[a])
            speeds.append(distance / (stamps_s[b] - stamps_s[a]))
            wanted.append(math.hypot(float(row["vn_mps"]), float(row["ve_mps"])))
    return float(np.corrcoef(speeds, wanted)[0, 1]) if len(speeds) > 2 else float("nan")


def simulator_fscore(result: Run) -> float:
    """F-score at 1 % of the scene's diameter of the mesh fused from the keyframes."""
    mesher = Mesher(MeshConfig(device="cpu"))
    for event in result.events:
        if isinstance(event, NewKeyframe):
            mesher.integrate(event.keyframe)
        elif isinstance(event, MovedKeyframes):
            mesher.move(event.world_from_cam)
    mesher.extract(stamp_ns=0)
    mesh = mesher.mesh()
    mesher.close()
    scene = build_scene(FLIGHT.seed)
    seen = thinned(_seen_points(), scene.diameter_m / SEEN_CELLS_PER_DIAMETER)
    fit, _, _ = result.aligned()
    score = evaluate_surface(transformed(mesh, fit), scene.mesh(), seen, 0.01 * scene.diameter_m)
    print(f"precision {score.precision:.3f}, recall {score.recall:.3f}")
    return score.fscore


def _seen_points() -> np.ndarray:
    points = []
    for view in views(FLIGHT, range(0, FLIGHT.frame_count, SEEN_EVERY_FRAMES)):
        lifted = pointmap_from_depth(view.depth_m, FLIGHT.camera)[::SEEN_STRIDE, ::SEEN_STRIDE]
        flat = lifted.reshape(-1, 3)
        flat = flat[flat[:, 2] < SEEN_FAR_M]
        points.append(transform(view.world_from_cam, flat))
    return np.concatenate(points)


def measure_simulator(bench: Benchmark) -> None:
    """Accuracy, coverage, surface and speed on the default flight."""
    result = run(simulated_frames(FLIGHT))
    _, error_m, length_m = result.aligned()
    note = f"{FLIGHT.duration_s:.0f} s, {length_m:.0f} m"
    bench.add("sim_ate_percent", 100.0 * error_m / length_m, "%", note=note)
    bench.add("sim_tracked_percent", result.tracked_percent, "%")
    bench.add("sim_mesh_fscore", simulator_fscore(result), "", note="threshold 1 % of the scene")
    steady = result.seconds[WARM_UP_FRAMES:]
    quarter = len(steady) // 4
    bench.add("fps", 1.0 / steady.mean(), "Hz", note="640×360, dense depth in the same thread")
    ratio = steady[:quarter].mean() / steady[-quarter:].mean()
    bench.add("fps_end_over_start", float(ratio), "")


def main() -> None:
    bench = Benchmark("reconstruction", id_prefix="recon")
    measure_simulator(bench)
    for name, folder, film, settings in (
        ("icl_ate_cm", "icl_livingroom1", living_room, {}),
        (
            "icl_unknown_camera_ate_cm",
            "icl_livingroom1",
            lambda: camera_withheld(living_room()),
            {},
        ),
        ("hololens_ate_cm", "hololens_room", hololens, {"tracks": WIDE_BASELINE_TRACKS}),
    ):
        if not (DATA / folder).exists():
            print(f"{name}: left out, {DATA / folder} is not there")
            continue
        result = run(film(), **settings)
        _, error_m, _ = result.aligned()
        bench.add(name, 100.0 * error_m, "cm", note=f"{result.tracked_percent:.0f} % tracked")
    if (DATA / "gopro_karma_drone").exists():
        result = run(karma())
        note = f"{result.tracked_percent:.0f} % tracked, camera unknown"
        bench.add("karma_speed_corr", speed_correlation(result.path), "", note=note)
        note = "half of the picture is sky and sea"
        bench.add("karma_coverage_percent", coverage_percent(result), "%", note=note)
    bench.write()


if __name__ == "__main__":
    main()
