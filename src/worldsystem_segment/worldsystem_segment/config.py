# SPDX-License-Identifier: Apache-2.0
"""Settings of segmentation; lengths are fractions of the scene unit, since scale is unknown."""

from __future__ import annotations

from dataclasses import dataclass

from worldsystem_core.config import Config, param


@dataclass(frozen=True, kw_only=True)
class SegmentConfig(Config):
    """How instances are cut out of a keyframe and how they keep their identity in the map.

    The scene unit is the median depth of the first usable keyframe; it never changes afterwards.
    """

    backend: str = param("geometric", "what finds the objects; `geometric` needs no weights")
    prompt: str = param("", "phrases that select what is reported; empty = every object")
    work_width_px: int = param(320, "wider keyframes are thinned to about this width [px]", low=32)
    min_confidence: float = param(0.1, "points below it are unknown", low=0.0, high=1.0)
    min_area_fraction: float = param(
        0.0012, "smallest instance [fraction of the picture]", low=0.0001, high=0.5
    )

    jump: float = param(
        0.05, "step in depth that separates things [fraction of depth]", low=0.005, high=0.5
    )
    crease_deg: float = param(
        40.0, "concave crease that separates touching things [degree]", low=5.0, high=90.0
    )
    ground_tolerance: float = param(
        0.012, "height above the ground that is still ground [fraction of depth]", low=0.001
    )
    relief: float = param(
        0.08, "how far the ground may leave its plane [fraction of depth]", low=0.005
    )
    wall_area: float = param(0.06, "smallest wall [scene unit squared]", low=0.01)
    max_extent: float = param(1.5, "longest object; longer is structure [scene unit]", low=0.01)

    voxel: float = param(0.015, "edge of a voxel of a track [scene unit]", low=0.001, high=0.5)
    confirm_hits: int = param(3, "sightings that confirm a track", low=1)
    tentative_keyframes: int = param(5, "an unconfirmed track unseen so long goes", low=1)
    vanish_keyframes: int = param(
        3, "sightings of empty space in a row that end a confirmed track", low=1
    )
    max_tracks: int = param(500, "tracks kept at most; births beyond it are counted", low=1)
    max_voxels: int = param(4000, "voxels per track at most; more are counted", low=16)
