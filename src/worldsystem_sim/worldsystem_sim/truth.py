# SPDX-License-Identifier: Apache-2.0
"""Ground truth of a simulated flight: written to a folder, and read back with the whole scene.

`ground_truth.tum` has a pose in `map` for every frame at the time of its capture; `frames.csv`
tells what became of each frame; `scene.json` holds the settings from which the scene is built
again. All times are of the host's clock, not of the drone's, which may be off.
"""

from __future__ import annotations

import csv
import errno
import json
import os
from collections import Counter
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

from worldsystem_core.config import config_from
from worldsystem_core.errors import SourceError
from worldsystem_core.frames import Camera
from worldsystem_core.geometry.pinhole import pointmap_from_depth
from worldsystem_core.geometry.se3 import transform
from worldsystem_core.shown_url import without_secrets
from worldsystem_core.surface import Mesh
from worldsystem_core.trajectory import StampedPoses, read_tum, write_tum
from worldsystem_sim.config import SimConfig
from worldsystem_sim.flight import Flight, flight
from worldsystem_sim.offline import View
from worldsystem_sim.render import Renderer
from worldsystem_sim.scene import Scene, build_scene

TRAJECTORY_FILE, FRAMES_FILE, SCENE_FILE = "ground_truth.tum", "frames.csv", "scene.json"


@dataclass(frozen=True)
class FrameRecord:
    """One frame that was due: its number, the host's time at its capture, what became of it."""

    number: int
    stamp_ns: int
    fate: str


def prepare_folder(folder: Path) -> None:
    """Make `folder` for a truth to come; `OSError` where it could not be written."""
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


def write_truth(
    folder: Path, config: SimConfig, records: list[FrameRecord], fault_counts: Counter[str]
) -> None:
    """Write the truth of a flight into `folder`, which is made when missing."""
    folder.mkdir(parents=True, exist_ok=True)
    scene = build_scene(config.seed)
    path = flight(config.flight, config.seed, config.duration_s, scene)
    numbers = np.array([record.number % config.frame_count for record in records], dtype=np.int64)
    stamps = np.array([record.stamp_ns for record in records], dtype=np.int64)
    seen, which = np.unique(numbers, return_inverse=True)  # a flight that loops has them often
    poses = path.poses(seen / config.fps)[which]
    write_tum(folder / TRAJECTORY_FILE, StampedPoses(stamps, poses))
    with (folder / FRAMES_FILE).open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["frame_number", "stamp_ns", "fate"])
        table.writerows([record.number, record.stamp_ns, record.fate] for record in records)
    content = {
        "settings": asdict(config) | {"url": without_secrets(config.url)},
        "camera": asdict(config.camera),
        "scene_diameter_m": scene.diameter_m,
        "frames": dict(Counter(record.fate for record in records)),
        "faults": dict(fault_counts),
        "instances": [asdict(instance) for instance in scene.instances],
    }
    (folder / SCENE_FILE).write_text(json.dumps(content, indent=1) + "\n")


def load_truth(folder: Path) -> Truth:
    """Read a folder that `write_truth` wrote; `SourceError` when it is not one."""
    try:
        content = json.loads((folder / SCENE_FILE).read_text())
        poses = read_tum(folder / TRAJECTORY_FILE)
        with (folder / FRAMES_FILE).open(newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError) as error:
        raise SourceError(f"{folder} holds no simulator ground truth: {error}") from error
    settings = content["settings"] | {"url": SimConfig.url}  # what was told may be no address now
    config = config_from(SimConfig, settings)
    if not isinstance(config, SimConfig):
        raise SourceError(f"{folder}: settings of an unknown kind")
    records = tuple(
        FrameRecord(int(row["frame_number"]), int(row["stamp_ns"]), row["fate"]) for row in rows
    )
    return Truth(config, poses, records)


@dataclass(frozen=True, eq=False)
class Truth:
    """What is known exactly about a flight; poses are `world_from_cam` in `map`."""

    config: SimConfig
    poses: StampedPoses
    records: tuple[FrameRecord, ...]

    @property
    def stamps_ns(self) -> Int64[np.ndarray, "n"]:
        """Each frame's time of capture, by the host's clock."""
        return self.poses.stamps_ns

    @property
    def camera(self) -> Camera:
        """The camera of the flight."""
        return self.config.camera

    @cached_property
    def scene(self) -> Scene:
        """The scene, built again from its seed."""
        return build_scene(self.config.seed)

    @cached_property
    def flight(self) -> Flight:
        """The flight, a function of the time since its start."""
        return flight(self.config.flight, self.config.seed, self.config.duration_s, self.scene)

    @cached_property
    def _renderer(self) -> Renderer:
        return Renderer(self.scene, self.camera)

    def mesh(self) -> Mesh:
        """All surfaces of the scene in `map`, seen or not."""
        return self.scene.mesh()

    def view(self, index: int) -> View:
        """Exact depth and ids of the frame at `index` of the trajectory."""
        pose = self.poses.world_from_cam[index]
        depth_m, ids = self._renderer.render_truth(pose)
        return View(self.records[index].number, depth_m, ids, pose)

    def visible_points(
        self, every_n_frames: int = 10, stride: int = 4, far_m: float = 60.0
    ) -> Float32[np.ndarray, "n 3"]:
        """Surface points [m, map] that the camera really saw, nearer than `far_m`.

        Every `every_n_frames`-th frame is taken, and of it every `stride`-th pixel both ways; of
        a flight that loops, what all laps see alike is there once.
        """
        seen = [np.zeros((0, 3), np.float32)]
        for index in self._at_different_places(every_n_frames):
            view = self.view(index)
            points = pointmap_from_depth(view.depth_m, self.camera)[::stride, ::stride].reshape(
                -1, 3
            )
            points = points[points[:, 2] < far_m]
            seen.append(transform(view.world_from_cam, points).astype(np.float32))
        return np.concatenate(seen)

    def _at_different_places(self, every_n_frames: int) -> list[int]:
        """Every so many frames; of a flight that loops, each place only the first time."""
        indices = np.arange(0, len(self.poses), every_n_frames)
        places = [self.records[index].number % self.config.frame_count for index in indices]
        first = np.unique(places, return_index=True)[1]
        return [int(index) for index in np.sort(indices[first])]
