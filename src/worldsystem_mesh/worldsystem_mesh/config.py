# SPDX-License-Identifier: Apache-2.0
"""Settings of the mesher."""

from __future__ import annotations

from dataclasses import dataclass

from worldsystem_core.config import Config, param


@dataclass(frozen=True, kw_only=True)
class MeshConfig(Config):
    """Fusion of keyframes into a coloured surface.

    Lengths are in world units, or in voxels, because the scale of `scene` is unknown: with
    `voxel` = 0 the voxel edge is the median depth of the first keyframe over `auto_voxels`, and
    stays so until `reset`.
    """

    voxel: float = param(0.0, "voxel edge [world units]; 0 = from the first keyframe", low=0.0)
    auto_voxels: float = param(
        80.0, "median depth of the first keyframe [voxels], when voxel = 0", low=8.0, high=1000.0
    )
    truncation_voxels: float = param(
        4.0, "least half-width of the band around a measured depth [voxels]", low=2.0, high=16.0
    )
    depth_noise: float = param(
        0.025,
        "half-width of the band as a share of the depth, where that is wider",
        low=0.0,
        high=0.2,
    )
    min_weight: float = param(
        1.5, "a voxel counts when seen by this many keyframes of full confidence", low=0.0
    )
    max_weight: float = param(
        256.0,
        "weight at which a voxel forgets half [keyframes of full confidence]",
        low=2.0,
        high=256.0,
    )
    min_confidence: float = param(0.05, "points below this are ignored [0..1]", low=0.0, high=1.0)
    max_depth_ratio: float = param(
        3.0, "points beyond this many median depths of their keyframe are ignored", low=1.0
    )
    free_space: bool = param(True, "whether seeing through a surface wears it away")
    move_voxels: float = param(
        0.25, "a keyframe is fused anew when its points moved this far [voxels]", low=0.0
    )
    store_mb: int = param(512, "memory for keyframes that can still be moved [MB]", low=1)
    max_blocks: int = param(100_000, "blocks of 8³ voxels to hold, 10 kB each", low=16)
    device: str = param("auto", "where the volume lives", choices=("auto", "cpu", "cuda"))
    threads: int = param(2, "threads of the CPU kernels", low=1, high=64)
