# SPDX-License-Identifier: Apache-2.0
"""`python -m worldsystem_core.precompile`: compile what numba compiles ahead of its first use.

The machine code is kept in numba's disk cache beside the modules; a second call finds it there.
"""

from __future__ import annotations

import numpy as np

from worldsystem_core.frames import Camera
from worldsystem_core.geometry.pinhole import pointmap_from_depth
from worldsystem_core.mesh_normals import vertex_normals
from worldsystem_core.reconstruction import Keyframe, ScaleState
from worldsystem_core.splats.packed import pack
from worldsystem_core.splats.voxel_areas import VoxelAreas
from worldsystem_core.splats.world import SplatWorld


def precompile() -> None:
    """Take a tiny wall in twice and pack it, and fill a hash, which calls every compiled loop."""
    camera, world = Camera.from_horizontal_fov(32, 24, 1.0), SplatWorld()
    depth = np.full((24, 32), 2.0, np.float32)
    for number in range(2):
        world.add(
            Keyframe(
                id=number,
                frame_id=number,
                stamp_ns=number,
                world_from_cam=np.eye(4),
                camera=camera,
                pointmap=pointmap_from_depth(depth, camera),
                confidence=np.ones(depth.shape, np.float32),
                rgb=np.zeros((*depth.shape, 3), np.uint8),
                scale=ScaleState.METRIC,
            )
        )
    pack(world.gaussians())
    keys, areas = np.arange(1 << 13), VoxelAreas(0.0)
    areas.add(keys, np.zeros_like(keys), np.ones(len(keys), np.float32))
    areas.finer_at(keys)
    vertex_normals(np.eye(3, dtype=np.float32), np.array([[0, 1, 2]], np.int32))


if __name__ == "__main__":
    precompile()
