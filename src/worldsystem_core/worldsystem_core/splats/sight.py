# SPDX-License-Identifier: Apache-2.0
"""What a keyframe says of splats that were there before: confirmed, seen through, or not seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int8

from worldsystem_core.geometry.se3 import inverse
from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.reconstruction import Keyframe
from worldsystem_core.splats.kernels import judge

_LEAST_CONFIDENCE = 0.3
_SAMPLES = 64


@dataclass(frozen=True, eq=False)
class Sight:
    """A keyframe with, for each pixel, its depth and the nearest depth around it (0: unknown)."""

    keyframe: Keyframe
    nearest: Float64[np.ndarray, "h w"]
    depth: Float64[np.ndarray, "h w"]

    @staticmethod
    def of(keyframe: Keyframe) -> Sight:
        """What `keyframe` knows of the space before it."""
        return Sight(keyframe, *_depths(keyframe))


def contradictions(
    means: Float32[np.ndarray, "n 3"], world_from_chunk: Sim3, sight: Sight
) -> Int8[np.ndarray, "n"] | None:
    """1 for each point that the keyframe sees through, -1 for each that it confirms, else 0.

    A point is seen through when every pixel of the 3 × 3 around it lies clearly behind, so that an
    edge that is a pixel off contradicts nothing. None where the keyframe sees none of the points.
    """
    keyframe = sight.keyframe
    cam_from_chunk = Sim3.from_pose(inverse(keyframe.world_from_cam)) @ world_from_chunk
    rotation = (cam_from_chunk.scale * cam_from_chunk.rotation).astype(np.float32)
    translation = cam_from_chunk.translation.astype(np.float32)
    few = means[:: max(1, len(means) // _SAMPLES)] @ rotation.T + translation
    if not _near(few, keyframe, margin=0.5).any():
        return None
    camera, verdict = keyframe.camera, np.empty(len(means), np.int8)
    intrinsics = (camera.fx, camera.fy, camera.cx, camera.cy)
    points = np.ascontiguousarray(means)
    judge(points, rotation, translation, intrinsics, sight.nearest, sight.depth, verdict)
    return verdict


def _near(points: Float32[np.ndarray, "n 3"], keyframe: Keyframe, margin: float) -> np.ndarray:
    """Which points lie in the picture, or within `margin` pictures beside it."""
    camera, z = keyframe.camera, points[:, 2]
    safe = np.maximum(z, 1e-9)
    u = (camera.fx * points[:, 0] / safe + camera.cx + 0.5) / camera.width
    v = (camera.fy * points[:, 1] / safe + camera.cy + 0.5) / camera.height
    inside = (z > 1e-6) & (u > -margin) & (u < 1 + margin) & (v > -margin) & (v < 1 + margin)
    return np.asarray(inside)


def _depths(
    keyframe: Keyframe,
) -> tuple[Float64[np.ndarray, "h w"], Float64[np.ndarray, "h w"]]:
    """The nearest depth of the 3 × 3 around each pixel, 0 where one is unknown; and its own."""
    z = keyframe.pointmap[..., 2]
    depth = np.where(np.isfinite(z) & (keyframe.confidence >= _LEAST_CONFIDENCE), z, 0.0)
    nearest = depth.copy()
    for axis in (0, 1):
        before, after = np.roll(nearest, 1, axis), np.roll(nearest, -1, axis)
        nearest = np.minimum(nearest, np.minimum(before, after))
    nearest[0] = nearest[-1] = 0.0
    nearest[:, 0] = nearest[:, -1] = 0.0
    return nearest, depth
