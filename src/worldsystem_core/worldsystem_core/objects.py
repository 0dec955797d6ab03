# SPDX-License-Identifier: Apache-2.0
"""Named things: tracks in the picture and objects in the map."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from jaxtyping import Float64, UInt16

from worldsystem_core.reconstruction import ScaleState


class TrackState(Enum):
    """How sure the tracker is of a track."""

    TENTATIVE = 0
    CONFIRMED = 1
    OCCLUDED = 2
    LOST = 3


@dataclass(frozen=True, kw_only=True)
class Track:
    """One object seen in one frame; `box_px` is (x0, y0, x1, y1), x1 and y1 exclusive."""

    id: int
    label: str
    score: float
    box_px: tuple[int, int, int, int]
    area_px: int
    age_frames: int
    state: TrackState


@dataclass(frozen=True, kw_only=True, eq=False)
class TrackFrame:
    """All tracks of one frame; `labels[v, u]` is the track id at that pixel, 0 = none."""

    frame_id: int
    keyframe_id: int
    stamp_ns: int
    tracks: tuple[Track, ...]
    labels: UInt16[np.ndarray, "h w"]


@dataclass(frozen=True, kw_only=True, eq=False)
class MapObject:
    """One object in the map: an oriented box `world_from_box` with edge lengths `size` [world]."""

    id: int
    label: str
    score: float
    world_from_box: Float64[np.ndarray, "4 4"]
    size: Float64[np.ndarray, "3"]
    point_count: int
    last_seen_ns: int


@dataclass(frozen=True, kw_only=True, eq=False)
class MapObjects:
    """The objects of the map at one time; replaces the set before it."""

    stamp_ns: int
    objects: tuple[MapObject, ...]
    scale: ScaleState = ScaleState.SCENE
