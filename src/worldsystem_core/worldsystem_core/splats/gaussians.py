# SPDX-License-Identifier: Apache-2.0
"""A set of anisotropic Gaussians, and what can be done to all of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from worldsystem_core.geometry.sim3 import Sim3

SH_BAND_0 = 0.28209479177387814
"""The zeroth spherical harmonic: colour = 0.5 + SH_BAND_0 × coefficient (3DGS)."""


@dataclass(frozen=True, eq=False)
class Gaussians:
    """n Gaussians: `means` and standard deviations `scales` [length units of their frame].

    `rotations` are unit quaternions (w, x, y, z) from the Gaussian's axes to its frame; `rgb` is
    sRGB in [0, 1]; `opacities` lie in [0, 1].
    """

    means: Float32[np.ndarray, "n 3"]
    scales: Float32[np.ndarray, "n 3"]
    rotations: Float32[np.ndarray, "n 4"]
    rgb: Float32[np.ndarray, "n 3"]
    opacities: Float32[np.ndarray, "n"]

    def __len__(self) -> int:
        return len(self.means)

    def __getitem__(self, chosen: Bool[np.ndarray, "n"] | Int[np.ndarray, "m"]) -> Gaussians:
        """Those of a mask or of a list of numbers."""
        return Gaussians(
            self.means[chosen],
            self.scales[chosen],
            self.rotations[chosen],
            self.rgb[chosen],
            self.opacities[chosen],
        )

    def transformed(self, a_from_b: Sim3) -> Gaussians:
        """The same Gaussians in frame a."""
        turn = quaternions_wxyz(a_from_b.rotation[None])[0]
        return Gaussians(
            a_from_b.apply(self.means).astype(np.float32),
            self.scales * np.float32(a_from_b.scale),
            quaternion_product(turn[None], self.rotations),
            self.rgb,
            self.opacities,
        )

    @staticmethod
    def empty() -> Gaussians:
        """None at all."""
        none = np.zeros((0, 3), np.float32)
        return Gaussians(none, none, np.zeros((0, 4), np.float32), none, none[:, 0])

    @staticmethod
    def joined(parts: Sequence[Gaussians]) -> Gaussians:
        """All of `parts` in one set; they must share a frame."""
        if not parts:
            return Gaussians.empty()
        return Gaussians(
            np.concatenate([part.means for part in parts]),
            np.concatenate([part.scales for part in parts]),
            np.concatenate([part.rotations for part in parts]),
            np.concatenate([part.rgb for part in parts]),
            np.concatenate([part.opacities for part in parts]),
        )


def quaternion_product(
    a: Float[np.ndarray, "#n 4"], b: Float[np.ndarray, "#n 4"]
) -> Float32[np.ndarray, "n 4"]:
    """Hamilton product of quaternions (w, x, y, z): first `b`, then `a`."""
    aw, ax, ay, az = a.T
    bw, bx, by, bz = b.T
    product = (
        aw * bw - ax * bx - ay * by - az * bz,
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
    )
    return np.stack(product, axis=-1).astype(np.float32)


def quaternions_wxyz(rotations: Float[np.ndarray, "n 3 3"]) -> Float32[np.ndarray, "n 4"]:
    """Unit quaternions (w, x, y, z), w ≥ 0, of rotation matrices.

    The largest component is found first and divides the others (Shepperd, 1978), which is exact
    near every half turn.
    """
    r = rotations
    xx, yy, zz = r[:, 0, 0], r[:, 1, 1], r[:, 2, 2]
    squares = np.stack([1 + xx + yy + zz, 1 + xx - yy - zz, 1 - xx + yy - zz, 1 - xx - yy + zz])
    largest = squares.argmax(axis=0)
    wx, wy, wz = r[:, 2, 1] - r[:, 1, 2], r[:, 0, 2] - r[:, 2, 0], r[:, 1, 0] - r[:, 0, 1]
    xy, xz, yz = r[:, 0, 1] + r[:, 1, 0], r[:, 0, 2] + r[:, 2, 0], r[:, 1, 2] + r[:, 2, 1]
    rows = np.array(
        [
            [squares[0], wx, wy, wz],
            [wx, squares[1], xy, xz],
            [wy, xy, squares[2], yz],
            [wz, xz, yz, squares[3]],
        ]
    )
    found = rows[largest, :, np.arange(len(r))]
    found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
    found *= np.where(found[:, :1] < 0, -1.0, 1.0)
    return found.astype(np.float32)


def matrices_of(rotations: Float32[np.ndarray, "n 4"]) -> Float32[np.ndarray, "n 3 3"]:
    """Rotation matrices of unit quaternions (w, x, y, z)."""
    w, x, y, z = rotations.T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.ascontiguousarray(np.array(rows, dtype=np.float32).transpose(2, 0, 1))
