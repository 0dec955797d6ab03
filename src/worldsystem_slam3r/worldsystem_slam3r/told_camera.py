# SPDX-License-Identifier: Apache-2.0
"""The camera as pictures bring it, with distortion as every back-end knows it."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from worldsystem_core.distortion import plumb_bob
from worldsystem_core.frames import Camera

COEFFICIENTS = 5


def with_known_distortion(camera: Camera) -> Camera:
    """The camera with k1 k2 p1 p2 k3 whatever it was told with, or without any distortion.

    Missing ones are 0. One of another lens model, with further numbers, counts as undistorted.
    """
    known = _five(camera.distortion)
    return camera if known == camera.distortion else replace(camera, distortion=known)


@lru_cache(maxsize=16)  # pictures bring the same again and again
def _five(told: tuple[float, ...]) -> tuple[float, ...]:
    known = plumb_bob("", told)
    return (*known, *[0.0] * COEFFICIENTS)[:COEFFICIENTS] if known else ()
