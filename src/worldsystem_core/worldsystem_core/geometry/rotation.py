# SPDX-License-Identifier: Apache-2.0
"""Rotations as quaternions in ROS order (x, y, z, w)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64
from scipy.spatial.transform import Rotation


def quaternion_xyzw_from_matrix(
    rotation: Float[np.ndarray, "3 3"],
) -> Float64[np.ndarray, "4"]:
    """Unit quaternion of a rotation matrix, with w ≥ 0."""
    quaternion = Rotation.from_matrix(rotation).as_quat(canonical=True)
    return np.asarray(quaternion, dtype=np.float64)


def matrix_from_quaternion_xyzw(
    quaternion: Float[np.ndarray, "4"],
) -> Float64[np.ndarray, "3 3"]:
    """Rotation matrix of a quaternion, which is normalised first."""
    return np.asarray(Rotation.from_quat(quaternion).as_matrix(), dtype=np.float64)
