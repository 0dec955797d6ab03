# SPDX-License-Identifier: Apache-2.0
"""Which way is up in a frame that was born with the first camera."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64

_CLEAR = 0.02


def estimate_up(world_from_cam: Float[np.ndarray, "n 4 4"]) -> Float64[np.ndarray, "3"]:
    """Unit vector against gravity, from cameras that are held without roll.

    A camera without roll has a horizontal x axis, so the vertical is what is most orthogonal to all
    x axes; that needs views in different directions. Until there are, and for no poses at all, the
    mean of the pictures' up is taken, which is wrong by the camera's tilt.
    """
    if not len(world_from_cam):
        return np.array([0.0, -1.0, 0.0])
    right, up = world_from_cam[:, :3, 0], -world_from_cam[:, :3, 1].mean(axis=0)
    values, vectors = np.linalg.eigh(right.T @ right / len(right))
    if values[1] < _CLEAR:
        return np.asarray(up / max(float(np.linalg.norm(up)), 1e-12))
    vertical = vectors[:, 0]
    return np.asarray(vertical if vertical @ up > 0 else -vertical)
