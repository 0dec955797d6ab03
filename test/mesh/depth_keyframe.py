# SPDX-License-Identifier: Apache-2.0
"""A keyframe of a camera at the origin that looks along z, of a given depth."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from worldsystem_core.frames import Camera
from worldsystem_core.geometry.pinhole import pointmap_from_depth
from worldsystem_core.reconstruction import Keyframe


def depth_keyframe(
    id: int, depth: Float[np.ndarray, "h w"], camera: Camera, grey: int = 128
) -> Keyframe:
    """Keyframe `id`, sure of all its pixels, of one grey."""
    return Keyframe(
        id=id,
        frame_id=id,
        stamp_ns=id,
        world_from_cam=np.eye(4),
        camera=camera,
        pointmap=pointmap_from_depth(depth, camera),
        confidence=np.ones(depth.shape, np.float32),
        rgb=np.full((*depth.shape, 3), grey, np.uint8),
    )
