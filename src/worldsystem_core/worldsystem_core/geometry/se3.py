# SPDX-License-Identifier: Apache-2.0
"""Rigid transforms as 4×4 matrices named `target_from_source`."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64


def pose_from(
    rotation: Float[np.ndarray, "3 3"], translation: Float[np.ndarray, "3"]
) -> Float64[np.ndarray, "4 4"]:
    """Put a rotation and a translation into one 4×4 matrix."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation
    matrix[:3, 3] = translation
    return matrix


def inverse(a_from_b: Float[np.ndarray, "4 4"]) -> Float64[np.ndarray, "4 4"]:
    """`b_from_a` of a rigid transform."""
    rotation = a_from_b[:3, :3].T
    return pose_from(rotation, -rotation @ a_from_b[:3, 3])


def is_rigid(a_from_b: Float[np.ndarray, "4 4"]) -> bool:
    """Whether it is finite, and its rotation one: neither a mirror image nor of another size.

    Up to 1e-4, which is more than poses in 32-bit floats are off.
    """
    rotation = a_from_b[:3, :3]
    if not np.isfinite(a_from_b).all():
        return False
    if not np.abs(rotation @ rotation.T - np.eye(3)).max() <= 1e-4:
        return False
    (a, b, c), (d, e, f), (g, h, i) = rotation.tolist()  # a determinant by NumPy takes longer
    return bool(a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g) > 0.0)


def transform(
    a_from_b: Float[np.ndarray, "4 4"], points_b: Float[np.ndarray, "... 3"]
) -> Float[np.ndarray, "... 3"]:
    """Map points (any leading shape) from frame b to frame a; keeps the points' precision."""
    matrix = a_from_b.astype(points_b.dtype)
    return np.asarray(points_b @ matrix[:3, :3].T + matrix[:3, 3])


def rotation_angle_rad(rotation: Float[np.ndarray, "3 3"]) -> float:
    """Angle of a rotation matrix, in [0, π]; exact near 0, where arccos of the trace is not."""
    sine = 0.5 * np.linalg.norm(
        [
            rotation[2, 1] - rotation[1, 2],
            rotation[0, 2] - rotation[2, 0],
            rotation[1, 0] - rotation[0, 1],
        ]
    )
    return float(np.arctan2(sine, 0.5 * (np.trace(rotation) - 1.0)))


def rotation_angles_rad(rotations: Float[np.ndarray, "n 3 3"]) -> Float64[np.ndarray, "n"]:
    """As `rotation_angle_rad`, of many at once."""
    skew = rotations - rotations.transpose(0, 2, 1)
    sine = 0.5 * np.linalg.norm(skew[:, (2, 0, 1), (1, 2, 0)], axis=1)
    cosine = 0.5 * (np.trace(rotations, axis1=1, axis2=2) - 1.0)
    return np.asarray(np.arctan2(sine, cosine))


def look_at(
    eye: Float[np.ndarray, "3"], target: Float[np.ndarray, "3"], up: Float[np.ndarray, "3"]
) -> Float64[np.ndarray, "4 4"]:
    """`world_from_cam` of a camera at `eye` that looks at `target` (x right, y down, z forward).

    Undefined when the viewing direction is parallel to `up`.
    """
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    return pose_from(np.stack([right, down, forward], axis=1), eye)
