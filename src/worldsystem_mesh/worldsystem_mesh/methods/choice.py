# SPDX-License-Identifier: Apache-2.0
"""Which method a region gets: by the camera's speed and the density of its points."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
from jaxtyping import Float64

from worldsystem_core.errors import BackendError
from worldsystem_mesh.config import MeshConfig
from worldsystem_mesh.methods.interface import RegionMethod
from worldsystem_mesh.methods.of_points import AlphaShape, BallPivoting, Nksr, Poisson, Tsdf

METHODS: dict[str, RegionMethod] = {
    method.name: method for method in (Tsdf(), Poisson(), BallPivoting(), AlphaShape(), Nksr())
}
NOMINAL_METRE_VOXELS = 50.0
"""Where the scale is unknown, speeds are in 50 voxels a second instead of metres a second: a metre
at 2 cm voxels, or 0.63 median depths of the first keyframe at the default of 80 voxels."""
_SPEED_SPAN_S = 1.0


def usable_method(name: str) -> RegionMethod:
    """The method called `name`; raises `BackendError` for one that cannot run here."""
    method = METHODS.get(name)
    if method is None:
        raise BackendError(f"no meshing method '{name}'; known: {', '.join(METHODS)}")
    if reason := method.missing():
        raise BackendError(f"meshing method '{name}' cannot run: {reason}")
    return method


class CameraSpeed:
    """Speed of the camera over the last second, and since when it has been still."""

    def __init__(self) -> None:
        self._seen: deque[tuple[int, Float64[np.ndarray, "3"]]] = deque()

    def add(self, stamp_ns: int, position: Float64[np.ndarray, "3"]) -> None:
        """Where the camera was [world units]; stamps that go back begin anew."""
        if self._seen and stamp_ns <= self._seen[-1][0]:
            self._seen.clear()
        self._seen.append((stamp_ns, np.array(position, np.float64)))
        while stamp_ns - self._seen[0][0] > 1e9 * _SPEED_SPAN_S and len(self._seen) > 2:
            self._seen.popleft()

    def per_second(self) -> float:
        """World units a second, along the path; NaN before the second position."""
        if len(self._seen) < 2:
            return math.nan
        places = np.array([place for _, place in self._seen])
        way = np.linalg.norm(np.diff(places, axis=0), axis=1).sum()
        return float(way / (1e-9 * (self._seen[-1][0] - self._seen[0][0])))

    @property
    def newest_ns(self) -> int:
        """Stamp of the newest position; 0 before the first."""
        return self._seen[-1][0] if self._seen else 0


class MethodChooser:
    """Fast: whatever costs least; slower: what suits few points; still: quality, where it is dense.

    Thresholds are in metres a second; `world_per_metre` says what a metre is in world units, and
    is 50 voxels where the scale is unknown. Raises `BackendError` for a method that cannot run.
    """

    def __init__(self, config: MeshConfig) -> None:
        self._config = config
        for name in (config.method_fast, config.method_sparse, config.method_still):
            usable_method(name)

    def at_speed(self, speed: float, world_per_metre: float) -> str:
        """The method for a camera of `speed` [world units a second]; NaN counts as fast."""
        metres = speed / world_per_metre
        if metres < self._config.still_speed:
            return self._config.method_still
        return (
            self._config.method_sparse
            if metres <= self._config.fast_speed
            else (self._config.method_fast)
        )

    def for_region(self, method: str, vertices: int, blocks: int) -> str:
        """`method`, or tsdf where the region's surface has too few points for it."""
        if vertices < self._config.method_min_points:
            return "tsdf"
        return method if vertices >= self._config.method_min_density * max(blocks, 1) else "tsdf"


def world_per_metre(metric: bool, voxel: float) -> float:
    """World units that count as a metre."""
    return 1.0 if metric else NOMINAL_METRE_VOXELS * voxel
