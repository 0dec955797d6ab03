# SPDX-License-Identifier: Apache-2.0
"""What one view shows of a thing (`Detection`), and what is remembered of it (`WorldTrack`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Float32

from worldsystem_segment.objects.track_points import TrackPoints

MOVES = 0.010  # sideways motion between keyframes [of depth] that no error of flow explains
SHAPE_VIEWS = 8  # the shape is asked of the first views and of every eighth one after
_MOVING, _RESTING = 1.5, 0.5  # votes of motion at which a track begins and ceases to move


@dataclass(frozen=True, kw_only=True, eq=False)
class Detection:
    """One instance of one view [scene units]."""

    points_cam: Float32[np.ndarray, "n 3"]
    points_world: Float32[np.ndarray, "n 3"]
    lab: Float32[np.ndarray, "3"]
    shape: Callable[[], str]  # the noun that this view suggests
    centre: Float32[np.ndarray, "3"]  # median point in the world
    truncated: bool  # touches the picture's border
    tags: frozenset[int] = frozenset()
    motion: float | None = None  # own motion since the view before [of depth]; None: unknown
    held_id: int = 0  # the track it was, as far as following it through the pictures tells

    @property
    def moves(self) -> bool:
        return self.motion is not None and self.motion > MOVES

    @cached_property
    def bounds(self) -> tuple[Float32[np.ndarray, "3"], Float32[np.ndarray, "3"]]:
        """Lowest and highest corner of its points in the world."""
        columns = self.points_world.T.copy()  # reducing along contiguous rows is ten times faster
        return columns.min(axis=1), columns.max(axis=1)

    @cached_property
    def extent(self) -> float:
        """Diagonal of its bounds."""
        low, high = self.bounds
        return float(np.linalg.norm(high - low))


@dataclass(kw_only=True, eq=False)
class WorldTrack:
    """What is remembered of one object [scene units; `velocity` per second]."""

    id: int
    lab: Float32[np.ndarray, "3"]
    centre: Float32[np.ndarray, "3"]
    points: TrackPoints
    first_feed: int
    first_seen_ns: int
    hits: int = 0
    misses: int = 0  # views that showed its place with something there, but not as an instance
    last_feed: int = 0
    last_seen_ns: int = 0
    empty_views: int = 0
    moving: bool = False
    motion: float = 0.0
    extent: float = 0.0
    velocity: Float32[np.ndarray, "3"] = field(default_factory=lambda: np.zeros(3, np.float32))
    nouns: Counter[str] = field(default_factory=Counter)
    tags: set[int] = field(default_factory=set)
    was_confirmed: bool = False  # others may know it by its id

    @property
    def certainty(self) -> float:
        """How sure it is that there is such a thing, in [0, 1)."""
        return self.hits / (self.hits + 1.0)

    def centre_at(self, stamp_ns: int) -> Float32[np.ndarray, "3"]:
        """Where the thing should be, were it to go on as it went."""
        ahead_s = min(1e-9 * (stamp_ns - self.last_seen_ns), 2.0)
        return self.centre + self.velocity * np.float32(ahead_s)

    def sight(self, detection: Detection, feed: int, stamp_ns: int) -> None:
        """Count a sighting: colour, place, motion, shape and tags follow it."""
        self._judge_motion(detection, stamp_ns)
        self.hits += 1
        self.empty_views = 0
        self.last_feed, self.last_seen_ns = feed, stamp_ns
        self.lab = self.lab + np.float32(max(0.1, 1.0 / self.hits)) * (detection.lab - self.lab)
        self.centre = detection.centre
        if not detection.truncated:
            self.extent += max(0.2, 1.0 / self.hits) * (detection.extent - self.extent)
        if self.hits <= SHAPE_VIEWS or self.hits % SHAPE_VIEWS == 0:
            self.nouns[detection.shape()] += 1
        self.tags |= detection.tags

    def take_over(self, other: WorldTrack) -> None:
        """Both turned out to be one thing: the more sightings count, and the later view holds.

        Where the one was missed the other may have been seen, so of the misses the fewer count.
        """
        self.points.take_over(other.points)
        self.nouns.update(other.nouns)
        self.tags |= other.tags
        self.hits = max(self.hits, other.hits)
        self.misses = min(self.misses, other.misses)
        self.empty_views = min(self.empty_views, other.empty_views)
        self.first_feed = min(self.first_feed, other.first_feed)
        self.first_seen_ns = min(self.first_seen_ns, other.first_seen_ns)
        self.was_confirmed |= other.was_confirmed
        if other.last_feed > self.last_feed:
            self.last_feed, self.last_seen_ns = other.last_feed, other.last_seen_ns
            self.lab, self.centre, self.extent = other.lab, other.centre, other.extent

    def _judge_motion(self, detection: Detection, stamp_ns: int) -> None:
        if detection.motion is not None:
            self.motion = min(self.motion + 1.0, 4.0) if detection.moves else self.motion - 0.5
            self.motion = max(self.motion, 0.0)
        self.moving = self.motion >= (_RESTING if self.moving else _MOVING)
        elapsed_s = 1e-9 * (stamp_ns - self.last_seen_ns)
        if not self.moving:
            self.velocity = np.zeros(3, np.float32)
        elif self.hits and 0 < elapsed_s < 2.0:
            measured = (detection.centre - self.centre) / np.float32(elapsed_s)
            self.velocity = (0.5 * (self.velocity + measured)).astype(np.float32)
