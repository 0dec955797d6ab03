# SPDX-License-Identifier: Apache-2.0
"""What a keyframe says of splats that were there before: confirmed, seen through, or not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64

from worldsystem_core.frames import Camera
from worldsystem_core.geometry.se3 import inverse
from worldsystem_core.reconstruction import Keyframe
from worldsystem_core.splats.chunk import Chunk
from worldsystem_core.splats.kernels import judge

_LEAST_CONFIDENCE = 0.3
_ROUNDING = 1.001


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


def cast_doubt(chunks: Sequence[Chunk], sight: Sight, most: int) -> list[int]:
    """Count in `doubts` of each chunk what the keyframe says of its splats: one more, up to `most`,
    for each that it sees through, none any more for each that it confirms.

    A splat is seen through when every pixel of the 3 × 3 around it lies clearly behind, so that an
    edge that is a pixel off contradicts nothing. Returns how many splats of each chunk have `most`
    doubts; 0 for chunks that lie beside the picture, of which nothing is said.
    """
    if not chunks:
        return []
    camera, rotations, translations = sight.keyframe.camera, *_to_camera(chunks, sight.keyframe)
    intrinsics = (camera.fx, camera.fy, camera.cx, camera.cy)
    counts = [0] * len(chunks)
    for i in np.flatnonzero(_before(chunks, rotations, translations, camera)).tolist():
        means = np.ascontiguousarray(chunks[i].gaussians.means)
        place = rotations[i], translations[i]
        counts[i] = judge(
            means, *place, intrinsics, sight.nearest, sight.depth, most, chunks[i].doubts
        )
    return counts


def _to_camera(
    chunks: Sequence[Chunk], keyframe: Keyframe
) -> tuple[Float32[np.ndarray, "n 3 3"], Float32[np.ndarray, "n 3"]]:
    """What takes each chunk's points to the keyframe's camera, scales included; for all at once."""
    places = [chunk.world_from_chunk for chunk in chunks]
    cam_from_world = inverse(keyframe.world_from_cam)
    rotation, translation = cam_from_world[:3, :3], cam_from_world[:3, 3]
    scales = np.array([place.scale for place in places])
    rotations = rotation @ np.array([place.rotation for place in places])
    translations = np.array([place.translation for place in places]) @ rotation.T + translation
    return (
        np.asarray(scales[:, None, None] * rotations, np.float32),
        np.asarray(translations, np.float32),
    )


def _before(
    chunks: Sequence[Chunk],
    rotations: Float32[np.ndarray, "n 3 3"],
    translations: Float32[np.ndarray, "n 3"],
    camera: Camera,
) -> Bool[np.ndarray, "n"]:
    """Which chunks may have splats in the picture: whose ball is not wholly beyond a side of it."""
    balls = [chunk.ball for chunk in chunks]
    centres = np.einsum("nij,nj->ni", rotations, np.array([centre for centre, _ in balls]))
    centres += translations
    scales = np.linalg.norm(rotations[:, :, 0], axis=1)
    radii = scales * np.array([radius for _, radius in balls])
    sides = np.array(
        [
            [camera.fx, 0.0, camera.cx + 0.5],
            [-camera.fx, 0.0, camera.width - 0.5 - camera.cx],
            [0.0, camera.fy, camera.cy + 0.5],
            [0.0, -camera.fy, camera.height - 0.5 - camera.cy],
            [0.0, 0.0, 1.0],
        ]
    )
    sides /= np.linalg.norm(sides, axis=1, keepdims=True)
    beyond = centres @ sides.T < -_ROUNDING * radii[:, None]
    return np.asarray(~beyond.any(axis=1))


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
