# SPDX-License-Identifier: Apache-2.0
"""Settings of the world of splats."""

from __future__ import annotations

from dataclasses import dataclass

from worldsystem_core.config import Config, param


@dataclass(frozen=True, kw_only=True)
class SplatsConfig(Config):
    """How fine the world of splats is, how large it may grow, and how much of a line it takes."""

    enabled: bool = param(True, "keep and stream a world of splats at all")
    voxel: float = param(
        0.0,
        "spacing below which two keyframes' splats are duplicates; 0: a hundredth of the first "
        "keyframe's median distance [world units]",
        low=0.0,
    )
    begun_voxel: float = param(
        0.0,
        "that of this stage before it was begun anew, until all keyframes are removed; 0 = none "
        "[world units]",
        low=0.0,
    )
    most_splats: int = param(
        500_000, "most splats; beyond it what is far is thinned", low=1_000, high=5_000_000
    )
    mbps: float = param(
        8.0, "most that `splats/delta` takes, packed; 0: no limit [Mbit/s]", low=0.0
    )
    renew_s: float = param(
        5.0, "time after which a chunk that lost some splats is sent again [s]", low=0.1
    )
    host: str = param("127.0.0.1", "address that the frame stream listens on; 0.0.0.0 opens it")
    frames: bool = param(
        False, "serve each keyframe's Gaussians alone as msgpack, for clients of that form"
    )
    frames_port: int = param(
        8766, "port of that WebSocket server; 0 picks a free one", low=0, high=65535
    )
    frames_splats: int = param(
        21_168, "most Gaussians of such a frame; the pointmap is thinned", low=100
    )
    frames_log_scales: bool = param(
        False, "scales of such a frame are natural logarithms; else lengths in world units"
    )
    archive_dir: str = param(
        "", "folder in which splats outlive a crash of this stage; empty = nowhere"
    )
    restore: bool = param(
        False,
        "go on with archive_dir and ask for the keyframes of before: after a crash of this stage "
        "alone",
    )
