# SPDX-License-Identifier: Apache-2.0
"""Named things: tracks in the picture and objects in the map."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from jaxtyping import Float64, UInt8, UInt16

from worldsystem_core.reconstruction import ScaleState

Candidates = tuple[tuple[str, float], ...]


class TrackState(Enum):
    """How sure the tracker is of a track."""

    TENTATIVE = 0
    CONFIRMED = 1
    OCCLUDED = 2
    LOST = 3


@dataclass(frozen=True, kw_only=True)
class Track:
    """One object in one frame; `box_px` is (x0, y0, x1, y1), x1 and y1 exclusive.

    Tracks that are `OCCLUDED` or `LOST` have no pixel: `area_px` is 0, and the box is where the
    object should be. `candidates` are labels with their share of the votes, most likely first.
    """

    id: int
    label: str
    score: float
    box_px: tuple[int, int, int, int]
    area_px: int
    age_frames: int
    state: TrackState
    candidates: Candidates = ()


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
    """One object in the map: an oriented box `world_from_box` with edge lengths `size` [world].

    `sightings` counts the keyframes it was seen in; `identity` is what an identify service said.
    """

    id: int
    label: str
    score: float
    world_from_box: Float64[np.ndarray, "4 4"]
    size: Float64[np.ndarray, "3"]
    point_count: int
    last_seen_ns: int
    first_seen_ns: int = 0
    sightings: int = 0
    moving: bool = False
    candidates: Candidates = ()
    identity: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class MapObjects:
    """The objects of the map at one time; replaces the set before it."""

    stamp_ns: int
    objects: tuple[MapObject, ...]
    scale: ScaleState = ScaleState.SCENE


@dataclass(frozen=True, kw_only=True, eq=False)
class ShownTracks:
    """A picture and the tracks in it, to be drawn for people; both have the same size."""

    rgb: UInt8[np.ndarray, "h w 3"]
    tracks: TrackFrame


@dataclass(frozen=True, kw_only=True)
class ObjectCrop:
    """A picture of one object, cut out with a margin and coded (`format`: `jpeg` or `png`).

    `box_px` is (x0, y0, x1, y1) in the picture of `stamp_ns`; `source_count` pictures were fused.
    """

    id: int
    label: str
    stamp_ns: int
    box_px: tuple[int, int, int, int]
    sharpness: float
    crop_count: int
    source_count: int
    data: bytes
    format: str = "jpeg"


class IdentifyOutcome(Enum):
    """What came of asking what an object is."""

    ANSWERED = 0
    FROM_CACHE = 1
    FAILED = 2
    REFUSED = 3


@dataclass(frozen=True, kw_only=True)
class ObjectIdentity:
    """What the identify service said of one object, or the problem that kept it from answering."""

    id: int
    label: str
    stamp_ns: int
    outcome: IdentifyOutcome
    answer: str = ""
    problem: str = ""
    latency_s: float = 0.0
    attempts: int = 0
    scale: ScaleState = ScaleState.SCENE
