# SPDX-License-Identifier: Apache-2.0
"""Settings of the reconstruction stage."""

from __future__ import annotations

from dataclasses import dataclass

from worldsystem_core.config import Config, param


@dataclass(frozen=True, kw_only=True)
class Slam3rConfig(Config):
    """Poses and dense keyframes from a video."""

    backend: str = param("geometric", "which reconstruction back-end runs")
    synchronous: bool = param(
        False, "compute dense depth inside feed(), so that the same video gives the same result"
    )
    focal_px: float = param(
        0.0, "focal length at the video's own size; 0 = from the camera, else estimated [px]", low=0
    )
    queue_frames: int = param(
        6,
        "pictures that may wait; when more come the oldest is let go and counted",
        low=1,
        high=100,
    )
    processing_width: int = param(640, "pictures wider than this are reduced [px]", low=64)
    tracks: int = param(400, "points followed from picture to picture", low=50, high=4000)
    window_keyframes: int = param(9, "keyframes refined together", low=3, high=40)
    depth_planes: int = param(64, "inverse-depth steps of the plane sweep", low=16, high=255)
    depth_neighbours: int = param(4, "keyframes that a dense depth is matched to", low=1, high=8)
    threads: int = param(2, "threads of the picture library", low=1, high=16)
