# SPDX-License-Identifier: Apache-2.0
"""Similarity transforms and their least-squares fit (Umeyama, IEEE TPAMI 13(4), 1991)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64


@dataclass(frozen=True, eq=False)
class Sim3:
    """`point_a = scale * rotation @ point_b + translation`."""

    scale: float
    rotation: Float64[np.ndarray, "3 3"]
    translation: Float64[np.ndarray, "3"]

    def apply(self, points_b: Float[np.ndarray, "... 3"]) -> Float64[np.ndarray, "... 3"]:
        """Map points from frame b to frame a."""
        return np.asarray(self.scale * (points_b @ self.rotation.T) + self.translation)

    def apply_pose(self, b_from_cam: Float[np.ndarray, "4 4"]) -> Float64[np.ndarray, "4 4"]:
        """Map a camera pose; its rotation stays a rotation, its position is scaled."""
        pose = np.eye(4)
        pose[:3, :3] = self.rotation @ b_from_cam[:3, :3]
        pose[:3, 3] = self.apply(b_from_cam[:3, 3])
        return pose

    def __matmul__(self, b_from_c: Sim3) -> Sim3:
        """`a_from_c`."""
        return Sim3(
            self.scale * b_from_c.scale,
            self.rotation @ b_from_c.rotation,
            self.apply(b_from_c.translation),
        )

    @property
    def pose(self) -> Float64[np.ndarray, "4 4"]:
        """Its rotation and translation as a rigid transform: a camera's pose, without its unit."""
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = self.rotation, self.translation
        return pose

    @property
    def is_sound(self) -> bool:
        """Whether something can lie there: all is finite, and its size above 0."""
        numbers = (*self.translation.tolist(), *self.rotation.ravel().tolist())
        return 0.0 < self.scale < math.inf and all(map(math.isfinite, numbers))

    @staticmethod
    def from_pose(a_from_b: Float[np.ndarray, "4 4"], scale: float = 1.0) -> Sim3:
        """The similarity with the rotation and translation of a rigid transform."""
        return Sim3(scale, a_from_b[:3, :3].copy(), a_from_b[:3, 3].copy())

    @staticmethod
    def identity() -> Sim3:
        """The transform that changes nothing."""
        return Sim3(1.0, np.eye(3), np.zeros(3))

    def inverse(self) -> Sim3:
        """The transform from frame a to frame b."""
        rotation = self.rotation.T
        return Sim3(1.0 / self.scale, rotation, -(rotation @ self.translation) / self.scale)


def fit_sim3(
    points_a: Float[np.ndarray, "n 3"],
    points_b: Float[np.ndarray, "n 3"],
    *,
    with_scale: bool = True,
) -> Sim3:
    """Least-squares `a_from_b` of matched points; needs three that are not on one line."""
    if len(points_a) != len(points_b) or len(points_a) < 3:
        raise ValueError(f"need ≥ 3 matched points, got {len(points_a)} and {len(points_b)}")
    mean_a, mean_b = points_a.mean(axis=0), points_b.mean(axis=0)
    centred_a, centred_b = points_a - mean_a, points_b - mean_b
    u, singular, vt = np.linalg.svd(centred_a.T @ centred_b / len(points_a))
    sign = np.ones(3)
    sign[2] = np.sign(np.linalg.det(u) * np.linalg.det(vt)) or 1.0
    rotation = (u * sign) @ vt
    variance_b = float((centred_b**2).sum() / len(points_b))
    scale = float((singular * sign).sum() / variance_b) if with_scale and variance_b else 1.0
    return Sim3(scale, rotation, mean_a - scale * rotation @ mean_b)
