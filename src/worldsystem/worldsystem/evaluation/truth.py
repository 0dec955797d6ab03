# SPDX-License-Identifier: Apache-2.0
"""What is known to be true about a run: the camera's path, the surface, what the camera saw."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from worldsystem_core.surface import Mesh
from worldsystem_core.trajectory import StampedPoses
from worldsystem_sim.truth import load_truth

SEEN_CELLS_PER_DIAMETER = 500


@dataclass(frozen=True, kw_only=True, eq=False)
class GroundTruth:
    """The truth of one run, in its own frame; what is not known is None.

    `poses` may have NaN rotations (satellite positions). `seen_points` lie on the true surface
    where the camera looked. `up` is the frame's vertical; `diameter` [truth units] is
    how big the scene is, for thresholds that are a share of it.
    """

    poses: StampedPoses
    mesh: Mesh | None = None
    seen_points: Float[np.ndarray, "n 3"] | None = None
    up: tuple[float, float, float] | None = None
    diameter: float | None = None

    @property
    def scene_diameter(self) -> float:
        """`diameter`, else the diagonal of the box around what the camera saw, else the path's."""
        if self.diameter is not None:
            return self.diameter
        points = self.poses.positions
        if self.seen_points is not None and len(self.seen_points):
            points = self.seen_points
        return float(np.linalg.norm(np.ptp(points, axis=0))) if len(points) else float("nan")


def from_simulator(folder: Path, *, every_n_frames: int = 20, stride: int = 4) -> GroundTruth:
    """The truth that a simulated flight left in `folder` (metres, z up); `SourceError` if none.

    What the camera saw comes from the exact depth of every `every_n_frames`-th frame, every
    `stride`-th pixel both ways, thinned so that near surface does not count more than far.
    """
    truth = load_truth(folder)
    diameter = truth.scene.diameter_m
    seen = truth.visible_points(every_n_frames, stride)
    return GroundTruth(
        poses=truth.poses,
        mesh=truth.mesh(),
        seen_points=thinned(seen, diameter / SEEN_CELLS_PER_DIAMETER),
        up=(0.0, 0.0, 1.0),
        diameter=diameter,
    )


def thinned(points: Float[np.ndarray, "n 3"], cell: float) -> Float[np.ndarray, "m 3"]:
    """At most one point, the first, in every cube of edge `cell`."""
    if not len(points):
        return points
    cells = np.floor(points / cell).astype(np.int64)
    cells -= cells.min(axis=0)
    span = cells.max(axis=0) + 1
    keys = (cells[:, 0] * span[1] + cells[:, 1]) * span[2] + cells[:, 2]
    return points[np.sort(np.unique(keys, return_index=True)[1])]
