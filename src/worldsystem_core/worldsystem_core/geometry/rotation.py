# SPDX-License-Identifier: Apache-2.0
"""Rotations as quaternions in ROS order (x, y, z, w)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64


def quaternion_xyzw_from_matrix(
    rotation: Float[np.ndarray, "*n 3 3"],
) -> Float64[np.ndarray, "*n 4"]:
    """Unit quaternions of rotation matrices, with w ≥ 0.

    The outer product of a quaternion with itself is linear in the matrix; its longest row is the
    most precise (Shepperd, 1978). SciPy's conversion takes over 0.1 ms, and poses are told often.
    """
    R = np.asarray(rotation, dtype=np.float64)
    outer = (R.reshape(-1, 9) @ _OUTER).reshape(-1, 4, 4) + np.eye(4)
    longest = np.diagonal(outer, axis1=1, axis2=2).argmax(axis=1)
    row = outer[range(len(outer)), longest]
    row[row[:, 3] < 0] *= -1.0
    row /= np.sqrt((row * row).sum(axis=1, keepdims=True))
    return np.asarray(row.reshape(*R.shape[:-2], 4))


def matrix_from_quaternion_xyzw(
    quaternion: Float[np.ndarray, "4"],
) -> Float64[np.ndarray, "3 3"]:
    """Rotation matrix of a quaternion, which is normalised first.

    Raises ValueError for one of no length. SciPy's would take each stage a second to import.
    """
    length = float(np.linalg.norm(quaternion))
    if not length > 0.0:
        raise ValueError(f"a quaternion of length {length} is no rotation")
    x, y, z, w = (float(part) / length for part in quaternion)
    return np.array(
        [
            [1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - z * w), 2.0 * (x * z + y * w)],
            [2.0 * (x * y + z * w), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - x * w)],
            [2.0 * (x * z - y * w), 2.0 * (y * z + x * w), 1.0 - 2.0 * (x * x + y * y)],
        ]
    )


def matrices_from_quaternions_xyzw(
    quaternions: Float[np.ndarray, "n 4"],
) -> Float64[np.ndarray, "n 3 3"]:
    """The same of many at once; raises ValueError where one has no length."""
    lengths = np.linalg.norm(quaternions, axis=1)
    if not (lengths > 0.0).all():
        raise ValueError("a quaternion of no length is no rotation")
    x, y, z, w = (quaternions / lengths[:, None]).T
    matrices = np.empty((len(quaternions), 3, 3))
    matrices[:, 0, 0] = 1.0 - 2.0 * (y * y + z * z)
    matrices[:, 0, 1] = 2.0 * (x * y - z * w)
    matrices[:, 0, 2] = 2.0 * (x * z + y * w)
    matrices[:, 1, 0] = 2.0 * (x * y + z * w)
    matrices[:, 1, 1] = 1.0 - 2.0 * (x * x + z * z)
    matrices[:, 1, 2] = 2.0 * (y * z - x * w)
    matrices[:, 2, 0] = 2.0 * (x * z - y * w)
    matrices[:, 2, 1] = 2.0 * (y * z + x * w)
    matrices[:, 2, 2] = 1.0 - 2.0 * (x * x + y * y)
    return matrices


def _outer_of_matrix() -> Float64[np.ndarray, "9 16"]:
    """Factors of a matrix's nine numbers in the sixteen of 4 q qᵀ - 1, by rows x, y, z, w."""
    factors = np.zeros((4, 4, 3, 3))
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        factors[i, i, i, i] = factors[3, 3, i, i] = 1.0
        factors[i, i, j, j] = factors[i, i, k, k] = -1.0
        factors[i, j, i, j] = factors[i, j, j, i] = 1.0
        factors[j, i] = factors[i, j]
        factors[i, 3, k, j], factors[i, 3, j, k] = 1.0, -1.0
        factors[3, i] = factors[i, 3]
    return factors.reshape(16, 9).T


_OUTER = _outer_of_matrix()
