# SPDX-License-Identifier: Apache-2.0
"""How many frames lie between key frames: many in rooms seen from afar, few in corridors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from worldsystem_core.frames import Camera
from worldsystem_core.geometry.pinhole import project
from worldsystem_core.geometry.se3 import inverse, transform

LOSS_IN_ROOMS = 0.25
LOSS_IN_CORRIDORS = 0.12
_SLOWEST, _FASTEST = 0.5, 1.5
_LEAST_LOSS = 0.02
_CORRIDOR_FORWARD = 0.8
_CORRIDOR_DEPTHS = 3.0
_CORRIDOR_PARALLAX_RAD = np.deg2rad(6.0)
_STILL_LOSS = 0.03
_STILL_PARALLAX_RAD = np.deg2rad(0.7)


@dataclass(frozen=True, eq=False)
class Viewpoint:
    """A placed frame: where the camera stood and a sample of the points it saw."""

    index: int
    scene_from_cam: Float64[np.ndarray, "4 4"]
    points: Float64[np.ndarray, "n 3"]
    camera: Camera


@dataclass(frozen=True)
class Advance:
    """What lies between two viewpoints.

    `loss` is the share of what one of them saw that the other does not see, `forward` how much of
    the way went along the view, `depth_ratio` far over near, `parallax_rad` the median angle under
    which the two see a point.
    """

    loss: float
    parallax_rad: float
    forward: float
    depth_ratio: float

    @property
    def corridor(self) -> bool:
        """Going down a long, narrow space: what is far hardly moves, what is near rushes by."""
        return (
            self.forward > _CORRIDOR_FORWARD
            and self.depth_ratio > _CORRIDOR_DEPTHS
            and self.parallax_rad < _CORRIDOR_PARALLAX_RAD
        )

    @property
    def still(self) -> bool:
        """Nothing new is seen, and from no new side."""
        return self.loss < _STILL_LOSS and self.parallax_rad < _STILL_PARALLAX_RAD


def advance(last: Viewpoint, now: Viewpoint) -> Advance:
    """Compare two viewpoints of one scene."""
    way = now.scene_from_cam[:3, 3] - last.scene_from_cam[:3, 3]
    length = float(np.linalg.norm(way))
    depth = transform(inverse(now.scene_from_cam), now.points)[:, 2]
    near, far = np.percentile(depth, [10, 90]) if len(depth) else (1.0, 1.0)
    return Advance(
        loss=1.0 - min(_seen_share(last, now), _seen_share(now, last)),
        parallax_rad=_parallax_rad(last, now),
        forward=abs(float(way @ now.scene_from_cam[:3, 2])) / length if length > 0 else 0.0,
        depth_ratio=float(far / max(near, 1e-9)),
    )


def _seen_share(by: Viewpoint, of: Viewpoint) -> float:
    """Share of the points of one viewpoint inside the picture of the other."""
    if not len(of.points):
        return 0.0
    return float(project(transform(inverse(by.scene_from_cam), of.points), by.camera)[1].mean())


def _parallax_rad(last: Viewpoint, now: Viewpoint) -> float:
    if not len(now.points):
        return 0.0
    a = now.points - last.scene_from_cam[:3, 3]
    b = now.points - now.scene_from_cam[:3, 3]
    sine = np.linalg.norm(np.cross(a, b), axis=1)
    return float(np.median(np.arctan2(sine, (a * b).sum(axis=1))))


class Pace:
    """The key-frame stride now, within `low` … `high` frames.

    Each new key frame shows how much of the view the stride cost; the next one is chosen so that
    a quarter of the view is new, half as much in corridors.
    """

    def __init__(self, low: int, high: int) -> None:
        self._low, self._high = low, high
        self.stride = low
        self.in_corridor = False

    def start(self, stride: int) -> None:
        """Begin with the stride that the scene was initialised with."""
        self.stride = int(np.clip(stride, self._low, self._high))

    def adapt(self, between: Advance, frames: int) -> int:
        """Take what lay between the last two key frames, `frames` apart; return the new stride."""
        self.in_corridor = between.corridor
        wanted_loss = LOSS_IN_CORRIDORS if between.corridor else LOSS_IN_ROOMS
        wanted = frames * wanted_loss / max(between.loss, _LEAST_LOSS)
        slowest, fastest = _SLOWEST * self.stride, max(_FASTEST * self.stride, self.stride + 1)
        self.stride = int(np.clip(round(np.clip(wanted, slowest, fastest)), self._low, self._high))
        return self.stride
