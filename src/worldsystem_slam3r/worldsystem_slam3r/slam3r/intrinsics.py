# SPDX-License-Identifier: Apache-2.0
"""The focal length of an unknown camera, from points that know their own pixels."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from worldsystem_core.frames import Camera

_ITERATIONS = 10
_PLAUSIBLE_WIDTHS = (0.3, 6.0)
_REMEMBERED = 201
_OTHER_LENS = 0.2
"""Starts that were filmed through one lens tell of less, the lenses of a phone of more."""


def weiszfeld_focal_px(
    points_cam: Float[np.ndarray, "n 3"], centred_px: Float[np.ndarray, "n 2"]
) -> float:
    """Focal length that minimises the sum of pixel distances, square pixels assumed.

    `centred_px` are pixels minus the principal point. Points (0, 0, 0) and those that are not
    finite do not count; without any other the result is NaN.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        rays = points_cam[:, :2].astype(np.float64) / points_cam[:, 2:3].astype(np.float64)
    rays[~np.isfinite(rays).all(axis=1)] = 0.0
    along = (rays * centred_px).sum(axis=1)
    square = (rays**2).sum(axis=1)
    if not square.any():
        return float("nan")
    focal = float(along.sum() / square.sum())
    for _ in range(_ITERATIONS):
        distance_px = np.linalg.norm(centred_px - focal * rays, axis=1)
        weight = 1.0 / np.maximum(distance_px, 1e-8)
        focal = float((weight * along).sum() / (weight * square).sum())
    return focal


class FocalEstimate:
    """The running median of what single frames say; bounded, and deaf to nonsense."""

    def __init__(self, picture_px: int) -> None:
        self._picture_px = picture_px
        self._told: deque[float] = deque(maxlen=_REMEMBERED)

    def add(self, focal_px: float) -> None:
        """Take one frame's focal length; those outside 0.3 … 6 picture widths are ignored."""
        low, high = (widths * self._picture_px for widths in _PLAUSIBLE_WIDTHS)
        if low <= focal_px <= high:
            self._told.append(focal_px)

    def with_start(self, focals_px: Sequence[float]) -> FocalEstimate:
        """This one, with those of a scene's start; where they tell of another lens, one of that."""
        start = FocalEstimate(self._picture_px)
        for focal_px in focals_px:
            start.add(focal_px)
        before, now = self.camera, start.camera
        if before and now and abs(now.fx / before.fx - 1.0) > _OTHER_LENS:
            return start
        self._told.extend(start._told)
        return self

    def forget(self) -> None:
        """The camera has changed."""
        self._told.clear()

    @property
    def camera(self) -> Camera | None:
        """The camera as far as it is known: square pixels, its axis through the middle."""
        if not self._told:
            return None
        f, side = float(np.median(self._told)), self._picture_px
        middle = 0.5 * (side - 1)
        return Camera(width=side, height=side, fx=f, fy=f, cx=middle, cy=middle)
