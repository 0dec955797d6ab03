# SPDX-License-Identifier: Apache-2.0
"""What texturing works on, and what it makes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int32, UInt8

from worldsystem_core.frames import Camera


@dataclass(frozen=True, kw_only=True, eq=False)
class Photo:
    """A keyframe as a source of texture; `depth` [world units], 0 or NaN where unknown."""

    rgb: UInt8[np.ndarray, "h w 3"]
    depth: Float32[np.ndarray, "h w"]
    camera: Camera
    world_from_cam: Float64[np.ndarray, "4 4"]


@dataclass(frozen=True, kw_only=True, eq=False)
class TexturedMesh:
    """A mesh with a place in a picture for each vertex: `uv` in 0..1, (0, 0) is the top left."""

    vertices: Float32[np.ndarray, "v 3"]
    uv: Float32[np.ndarray, "v 2"]
    faces: Int32[np.ndarray, "f 3"]
    texture: UInt8[np.ndarray, "h w 3"]


def spread(count: int, most: int) -> list[int]:
    """Places of `count` things; of more than `most` (two at least) so many, evenly spread, the
    first and the last among them."""
    if count <= most:
        return list(range(count))
    return [at * (count - 1) // (most - 1) for at in range(most)]
