# SPDX-License-Identifier: Apache-2.0
"""What a back-end made of a film, and how good it is. Lengths are compared after alignment."""

from __future__ import annotations

import csv
import math
import time
from dataclasses import dataclass

import cv2
import numpy as np
from reconstruction_films import DATA, Posed, living_room_poses
from scipy.spatial.transform import Rotation

from worldsystem.evaluation.cloud import CloudError, evaluate_cloud
from worldsystem.evaluation.surface import area_samples, evaluate_surface, transformed
from worldsystem.evaluation.truth_files import SEEN_CELLS_PER_DIAMETER, thinned
from worldsystem_core.frames import Camera
from worldsystem_core.geometry.pinhole import pointmap_from_depth
from worldsystem_core.geometry.se3 import transform
from worldsystem_core.geometry.sim3 import Sim3, fit_sim3
from worldsystem_core.reconstruction import (
    Event,
    MovedKeyframes,
    NewKeyframe,
    Pose,
    RemovedKeyframes,
    TrackingState,
)
from worldsystem_core.surface import Mesh
from worldsystem_core.trajectory import StampedPoses, Trajectory
from worldsystem_mesh.config import MeshConfig
from worldsystem_mesh.mesher import Mesher
from worldsystem_sim.config import SimConfig
from worldsystem_sim.offline import views
from worldsystem_sim.scene import build_scene
from worldsystem_slam3r.backend import create_backend
from worldsystem_slam3r.config import Slam3rConfig

SEEN_EVERY_FRAMES = 20
SEEN_STRIDE = 4
SEEN_FAR_M = 60.0
TRUE_CELL_M = 0.01


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
        """`truth_from_estimate`, the root mean square position error and the true path's length.

        With fewer than three poses found the error is NaN.
        """
        path = self.path
        everything = np.array([pose[:3, 3] for pose in self.truth.values()])
        length = float(np.linalg.norm(np.diff(everything, axis=0), axis=1).sum())
        if len(path) < 3:
            return Sim3(1.0, np.eye(3), np.zeros(3)), float("nan"), length
        wanted = np.array([self.truth[stamp][:3, 3] for stamp in path.stamps_ns.tolist()])
        fit = fit_sim3(wanted, path.positions)
        error = np.linalg.norm(fit.apply(path.positions) - wanted, axis=1)
        return fit, float(np.sqrt((error**2).mean())), length

    @property
    def coverage_percent(self) -> float:
        """Share of the keyframes' pixels that got a depth, without keyframes withdrawn later."""
        shares: dict[int, float] = {}
        for event in self.events:
            if isinstance(event, NewKeyframe):
                shares[event.keyframe.id] = float((event.keyframe.confidence > 0).mean())
            elif isinstance(event, RemovedKeyframes):
                for key in event.ids:
                    shares.pop(key, None)
        return 100.0 * float(np.mean(list(shares.values()))) if shares else 0.0

    def mesh(self) -> Mesh:
        """The surface fused from the keyframes, in the truth's frame."""
        mesher = Mesher(MeshConfig(device="cpu"))
        for event in self.events:
            if isinstance(event, NewKeyframe):
                mesher.integrate(event.keyframe)
            elif isinstance(event, MovedKeyframes):
                mesher.move(event.world_from_cam, event.point_scale, event.scale)
            elif isinstance(event, RemovedKeyframes):
                mesher.remove(event.ids, event.heirs)
        mesher.settle(stamp_ns=0)
        mesh = mesher.mesh()
        mesher.close()
        return transformed(mesh, self.aligned()[0])


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


def flight_fscore(result: Run, flight: SimConfig) -> float:
    """F-score of the mesh at 1 % of the scene's diameter."""
    scene = build_scene(flight.seed)
    cell_m = scene.diameter_m / SEEN_CELLS_PER_DIAMETER
    seen = thinned(_seen_points(flight), cell_m)
    return evaluate_surface(result.mesh(), scene.mesh(), seen, 0.01 * scene.diameter_m).fscore


def _seen_points(flight: SimConfig) -> np.ndarray:
    points = []
    for view in views(flight, range(0, flight.frame_count, SEEN_EVERY_FRAMES)):
        lifted = pointmap_from_depth(view.depth_m, flight.camera)[::SEEN_STRIDE, ::SEEN_STRIDE]
        flat = lifted.reshape(-1, 3)
        flat = flat[flat[:, 2] < SEEN_FAR_M]
        points.append(transform(view.world_from_cam, flat))
    return np.concatenate(points)


def living_room_error(result: Run) -> CloudError:
    """The mesh against the living room's fused true depth; recall at 8 cm is what is covered."""
    camera = Camera(width=640, height=480, fx=525, fy=525, cx=319.5, cy=239.5)
    folder = DATA / "icl_livingroom1" / "depth"
    clouds = []
    for i, pose in enumerate(living_room_poses()[::10]):
        counts = cv2.imread(str(folder / f"{10 * i:05d}.png"), cv2.IMREAD_UNCHANGED)
        depth_m = np.asarray(counts, np.float32) / 1000.0
        points = pointmap_from_depth(depth_m, camera)[::2, ::2]
        flat = points.reshape(-1, 3)
        clouds.append(transform(pose, flat[np.isfinite(flat[:, 2])]))
    truth = thinned(np.concatenate(clouds), TRUE_CELL_M)
    return evaluate_cloud(area_samples(result.mesh(), 200_000), truth, (0.04, 0.08))


def speed_correlation(path: StampedPoses) -> float:
    """Correlation of the drone's estimated speed over half a second with the autopilot's."""
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


def direction_error_deg(path: StampedPoses) -> float:
    """Angle between the drone's estimated and the autopilot's direction of travel, each over a
    second, 90th percentile while it flies faster than 2 m/s.

    One rotation for the whole flight is fitted first: how the camera hangs on the drone is unknown.
    """
    with (DATA / "gopro_karma_drone" / "telemetry_local_ned.csv").open() as file:
        rows = list(csv.DictReader(file))
    at_s = np.array([float(row["t_video_approx_s"]) for row in rows])
    ned = np.array([[float(row[axis]) for axis in ("n_m", "e_m", "d_m")] for row in rows])
    stamps_s = path.stamps_ns * 1e-9
    begins_s = np.arange(max(at_s[0], stamps_s[0]), min(at_s[-1], stamps_s[-1]) - 1.0, 0.25)

    def steps(times_s: np.ndarray, places: np.ndarray) -> np.ndarray:
        """How far it went in the second after each begin."""
        at = [np.interp([begins_s, begins_s + 1.0], times_s, axis) for axis in places.T]
        return np.stack([axis[1] - axis[0] for axis in at], axis=-1)

    flown, true = steps(stamps_s, path.positions), steps(at_s, ned)
    fast = np.linalg.norm(true, axis=1) > 2.0
    flown = flown[fast] / np.linalg.norm(flown[fast], axis=1, keepdims=True)
    true = true[fast] / np.linalg.norm(true[fast], axis=1, keepdims=True)
    rotation, _ = Rotation.align_vectors(true, flown)
    cosine = np.einsum("ij,ij->i", rotation.apply(flown), true)
    return float(np.percentile(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))), 90))


def speed_variation(path: StampedPoses) -> float:
    """Standard deviation over mean of the speed in windows of a second: a walk has an even pace."""
    if len(path) < 60:
        return float("nan")
    step = 30
    moved = np.linalg.norm(path.positions[step:] - path.positions[:-step], axis=1)
    speed = moved / ((path.stamps_ns[step:] - path.stamps_ns[:-step]) * 1e-9)
    return float(speed.std() / speed.mean())
