# SPDX-License-Identifier: Apache-2.0
"""What is known to be true about a run: the camera's path, the surface, what the camera saw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from worldsystem_core.surface import Mesh
from worldsystem_core.trajectory import StampedPoses


@dataclass(frozen=True, kw_only=True, eq=False)
class GroundTruth:
    """The truth of one run, in its own frame; what is not known is None.

    `poses` may have NaN rotations (satellite positions). `seen_points` lie on the true surface
    where the camera looked. `up` is the frame's vertical; `diameter` [truth units] is
    how big the scene is, for thresholds that are a share of it. `frame_count` is how many pictures
    there are to track, which the poses need not be as many as (0: as many).
    """

    poses: StampedPoses
    mesh: Mesh | None = None
    seen_points: Float[np.ndarray, "n 3"] | None = None
    up: tuple[float, float, float] | None = None
    diameter: float | None = None
    frame_count: int = 0

    @property
    def scene_diameter(self) -> float:
        """`diameter`, else the diagonal of the box around what the camera saw, else the path's."""
        if self.diameter is not None:
            return self.diameter
        points = self.poses.positions
        if self.seen_points is not None and len(self.seen_points):
            points = self.seen_points
        return float(np.linalg.norm(np.ptp(points, axis=0))) if len(points) else float("nan")
