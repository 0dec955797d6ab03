# SPDX-License-Identifier: Apache-2.0
"""The camera as pictures bring it, with distortion as every back-end knows it."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import lru_cache

from worldsystem_core.frames import Camera

log = logging.getLogger(__name__)

COEFFICIENTS = 5


def with_known_distortion(camera: Camera) -> Camera:
    """The camera with k1 k2 p1 p2 k3 whatever it was told with, or without any distortion.

    Missing ones are 0. One of another lens model, with further numbers, counts as undistorted.
    """
    known = _plumb_bob(camera.distortion)
    return camera if known == camera.distortion else replace(camera, distortion=known)


@lru_cache(maxsize=16)  # pictures bring the same again and again: it is warned of once
def _plumb_bob(told: tuple[float, ...]) -> tuple[float, ...]:
    if any(told[COEFFICIENTS:]):
        log.warning(
            "the camera's distortion has %d coefficients, and only plumb-bob's %d are known here; "
            "its pictures are taken as undistorted. Send rectified pictures instead",
            len(told),
            COEFFICIENTS,
        )
        return ()
    return (*told, *[0.0] * COEFFICIENTS)[:COEFFICIENTS] if any(told) else ()
