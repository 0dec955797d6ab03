# SPDX-License-Identifier: Apache-2.0
"""Settings of the mesher."""

from __future__ import annotations

from dataclasses import dataclass

from worldsystem_core.config import Config, param
from worldsystem_core.errors import ConfigError

VOXELS_SHARE, SURFACE_SHARE = 0.75, 0.1
"""Of `memory_mb`; the rest is for what an update takes while it is worked on, and for lists of all
blocks while they grow. Surface on disk costs least: hardly any of it is read back."""
METHOD_NAMES = ("tsdf", "poisson", "ball_pivoting", "alpha_shape", "nksr")


@dataclass(frozen=True, kw_only=True)
class MeshConfig(Config):
    """Fusion of keyframes into a coloured surface.

    Lengths are in world units, or in voxels, because the scale of `scene` is unknown: with
    `voxel` = 0 the voxel edge is the median depth of the first keyframe over `auto_voxels`, and
    stays so until `reset`.
    """

    voxel: float = param(0.0, "voxel edge [world units]; 0 = from the first keyframe", low=0.0)
    begun_voxel: float = param(
        0.0,
        "voxel edge of this stage before it was begun anew, when voxel = 0, until all keyframes "
        "are removed; 0 = none [world units]",
        low=0.0,
    )
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
        1.5,
        "a voxel counts when seen by this many keyframes of full confidence; at most max_weight",
        low=0.0,
        high=16.0,
    )
    max_weight: float = param(
        31.0,
        "weight beyond which the mean follows new views [keyframes of full confidence]",
        low=2.0,
        high=31.0,
    )
    min_confidence: float = param(0.05, "points below this are ignored [0..1]", low=0.0, high=1.0)
    max_depth_ratio: float = param(
        3.0, "points beyond this many median depths of their keyframe are ignored", low=1.0
    )
    free_space: bool = param(True, "whether seeing through a surface wears it away")
    decay_keyframes: float = param(
        0.0, "keyframes after which what was not seen again counts half; 0 = never", low=0.0
    )
    forget_keyframes: int = param(
        200,
        "after so many keyframes that measured no surface in a block, one near which there is none "
        "lets go of its voxels; 0 = never",
        low=0,
    )
    redraw_voxels: float = param(
        0.25,
        "a block is drawn again when its surface moved by more than this in all [voxels]",
        low=0.0,
        high=4.0,
    )
    move_voxels: float = param(
        0.25, "a keyframe is fused anew when its points moved this far [voxels]", low=0.0
    )
    refusion_share: float = param(
        0.6,
        "time for fusing moved keyframes anew, as a share of an update's own time",
        low=0.05,
        high=10.0,
    )
    memory_mb: int = param(1024, "memory for voxels and surface; more goes to disk [MB]", low=8)
    store_mb: int = param(512, "memory for keyframes; older ones go to disk [MB]", low=1)
    page_dir: str = param("", "folder of what goes to disk; empty = the system's temporary one")
    archive_dir: str = param(
        "", "folder in which fused keyframes outlive a crash of this stage; empty = nowhere"
    )
    archive_mb: int = param(
        1024, "most that archive_dir takes; beyond, keyframes that were replaced go [MB]", low=1
    )
    device: str = param("auto", "where the volume lives", choices=("auto", "cpu", "cuda"))
    threads: int = param(2, "threads of the CPU kernels", low=1, high=64)
    stream_mbps: float = param(
        1.0, "most that mesh/stream sends [Mbit/s]; 0: as fast as the surface changes", low=0.0
    )
    stream_encoding: str = param(
        "code",
        "how mesh/stream writes blocks: code (docs/mesh_code.md), draco, or raw",
        choices=("code", "draco", "raw"),
    )
    method_fast: str = param(
        "tsdf", "method while the camera is faster than fast_speed", choices=METHOD_NAMES
    )
    method_sparse: str = param(
        "tsdf", "method between still_speed and fast_speed", choices=METHOD_NAMES
    )
    method_still: str = param(
        "poisson", "method for regions left alone while the camera is still", choices=METHOD_NAMES
    )
    fast_speed: float = param(
        0.5, "the camera is fast above this [m/s; 50 voxels/s where the scale is unknown]", low=0.0
    )
    still_speed: float = param(
        0.1, "the camera is still below this [m/s; 50 voxels/s where the scale is unknown]", low=0.0
    )
    method_settle_s: float = param(
        2.0, "a region is left alone when it has not changed for this long [s]", low=0.0
    )
    method_region_blocks: int = param(4, "edge of a region [blocks of 8 voxels]", low=1, high=16)
    method_min_points: int = param(100, "a region of fewer vertices keeps tsdf", low=1)
    method_min_density: float = param(
        10.0, "a region of fewer vertices a block of surface keeps tsdf", low=0.0
    )
    method_only_fill: bool = param(
        True, "quality methods add surface where tsdf has none, and leave the rest as it is"
    )
    restore: bool = param(
        False,
        "go on with archive_dir and ask for the keyframes of before: after a crash of this stage "
        "alone",
    )
    metrics_host: str = param(
        "127.0.0.1", "address of /metrics and /health; 0.0.0.0 = every network"
    )
    metrics_port: int = param(
        8006, "port of /metrics and /health; 0 = any free one", low=0, high=65535
    )
    metrics_token_file: str = param(
        "", "JSON file with a token under any name; empty: everybody who reaches the port may look"
    )
    metrics_tls_certificate: str = param("", "certificate chain (PEM) for https; empty: no TLS")
    metrics_tls_key: str = param("", "private key (PEM) of the certificate")
    method_timeout_s: float = param(60.0, "a region that takes longer keeps tsdf [s]", low=1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_weight > self.max_weight:
            raise ConfigError(
                f"MeshConfig.min_weight = {self.min_weight} is above max_weight = "
                f"{self.max_weight}, which no voxel gets beyond: there would be no surface; lower "
                "min_weight or raise max_weight"
            )

    @property
    def voxel_bytes(self) -> int:
        """Memory for voxels and the places of all blocks."""
        return int(VOXELS_SHARE * self.memory_mb * 1_000_000)

    @property
    def surface_bytes(self) -> int:
        """Memory for the surface's code."""
        return int(SURFACE_SHARE * self.memory_mb * 1_000_000)
