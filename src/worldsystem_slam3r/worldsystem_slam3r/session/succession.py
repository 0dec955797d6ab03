# SPDX-License-Identifier: Apache-2.0
"""Newer keyframes stand in for older ones that show the same from the same place.

So the map grows with the area that was seen, not with the time it was looked at, and it shows what
is there now. ORB-SLAM culls a keyframe most of whose points at least three others see (Mur-Artal,
Montiel, Tardós, IEEE T-RO 31(5), 2015, section VI.E); here the older ones go, since the newer know
what has changed meanwhile.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from jaxtyping import UInt8

from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.reconstruction import RemovedKeyframes, Successor
from worldsystem_slam3r.graph.atlas import Atlas, Kept
from worldsystem_slam3r.graph.loops import LoopFinder
from worldsystem_slam3r.graph.pose_graph import Edge
from worldsystem_slam3r.graph.verify import LEAST_LIKENESS, LEAST_OVERLAP, Agreement, surfaces
from worldsystem_slam3r.maps.keeper import MapKeeper
from worldsystem_slam3r.scale.metric import MetricScale

COVERED = 0.75
"""Share of an older keyframe's known surface that newer ones must see together."""
SAME = 0.75
"""Share of the surface that both see which must lie where the older one has it."""
NEAR_DEPTHS = 0.15
NEAR_RAD = np.deg2rad(10.0)
ENOUGH_VIEWS, LEAST_COVERED = 3, 0.5
"""So many newer views from its place, which together see this share, make up for what they do not
see of a patchy one."""
AS_MUCH = 0.9
"""Share of the older one's known surface that the last of them must know itself."""
LOOSE_TURN_RAD, LOOSE_DEPTHS, LOOSE_LOG_SCALE = 0.05, 0.05, 0.05
"""What is known of how two lie to each other that no link joins: their surfaces coincide."""


class Succession:
    """Compares keyframes that have come to rest with older ones around them.

    `after` is how many keyframes the back-end still refines; until then it may withdraw them. As
    many lie between a keyframe and its successor: those of one pass stay. So does the oldest of
    each part of the graph, by which the part is held where it began. `_seen` holds for a
    keyframe, by newer ones near it, what each saw of its coarse picture (packed bits).
    """

    def __init__(
        self, atlas: Atlas, finder: LoopFinder, maps: MapKeeper, metric: MetricScale, after: int
    ) -> None:
        self._atlas = atlas
        self._finder = finder
        self._maps = maps
        self._metric = metric
        self._after = after
        self._moving: deque[int] = deque()
        self._seen: dict[int, dict[int, UInt8[np.ndarray, "n"]]] = {}

    def note(self, kept: Kept) -> None:
        """A keyframe was looked at closely; it is compared once it is refined no more."""
        self._moving.append(kept.id)

    def take_due(self) -> list[RemovedKeyframes]:
        """Let the older keyframes go for which newer ones that are at rest stand in."""
        newest = max(self._atlas.newest.values(), default=0)
        fixed: set[int] = self._atlas.graph.oldest() if self._is_due(newest) else set()
        successors: dict[int, Successor] = {}
        while self._is_due(newest):
            heir = self._atlas.keyframes.get(self._moving[0])
            if heir is not None and not self._atlas.is_placed(heir.submap):
                break  # its sub-map is still held back
            self._moving.popleft()
            if heir is not None:
                gone = self._replaced_by(heir, fixed)
                successors = {key: gone.get(s.id, s) for key, s in successors.items()} | gone
        self._seen = {key: seen for key, seen in self._seen.items() if key in self._atlas.keyframes}
        return [RemovedKeyframes(tuple(successors), successors)] if successors else []

    def _is_due(self, newest: int) -> bool:
        return bool(self._moving) and self._moving[0] + self._after < newest

    def _replaced_by(self, heir: Kept, fixed: set[int]) -> dict[int, Successor]:
        """Newest first: one that goes covers nothing of those that are asked after it."""
        return {
            old.id: self._replaced(old, heir)
            for old in reversed(self._around(heir))
            if old.id not in fixed and self._is_seen_enough(old, heir)
        }

    def _around(self, heir: Kept) -> list[Kept]:
        """Older keyframes that look from nearly the same place in nearly the same direction."""
        older = [
            kept
            for kept in self._atlas.keyframes.values()
            if kept.id + self._after < heir.id and self._atlas.is_placed(kept.submap)
        ]
        if not older:
            return []
        places = np.array([kept.world.translation for kept in older])
        turns = np.array([kept.world.rotation for kept in older])
        depths = np.array([min(_depth(kept), _depth(heir)) for kept in older])
        steps = np.linalg.norm(places - heir.world.translation, axis=1)
        cosines = (np.tensordot(turns, heir.world.rotation, 2) - 1.0) / 2.0
        near = (steps <= NEAR_DEPTHS * depths) & (cosines >= np.cos(NEAR_RAD))
        return [older[row] for row in np.flatnonzero(near)]

    def _is_seen_enough(self, old: Kept, heir: Kept) -> bool:
        """Note what `heir` sees of it, and say whether that is enough now."""
        if old.station is None or heir.station is None:
            return False
        found = surfaces(heir.station, old.station, heir.world.inverse() @ old.world)
        if not _is_same_place(found):
            return False
        seen = self._seen.get(old.id, {}) | {heir.id: np.packbits(found.seen)}
        seen = {key: mask for key, mask in seen.items() if key in self._atlas.keyframes}
        self._seen[old.id] = seen
        known, own = np.isfinite(old.station.depth), np.isfinite(heir.station.depth)
        together = np.bitwise_or.reduce(list(seen.values()))
        covered = np.unpackbits(together).sum() / known.sum()
        if covered > COVERED:
            return True
        enough = len(seen) >= ENOUGH_VIEWS and covered >= LEAST_COVERED
        return bool(enough and own.mean() >= AS_MUCH * known.mean())

    def _replaced(self, old: Kept, heir: Kept) -> Successor:
        self._metric.hang_on(old.id, heir.id)
        self._finder.forget(old.id)
        self._maps.remove(old.id)
        self._atlas.graph.contract(_loose_edge(old, heir))
        self._atlas.remove(old.id)
        return Successor(heir.id, heir.told.pose, heir.told.scale / heir.first_unit)


def _depth(kept: Kept) -> float:
    return kept.depth * kept.world.scale


def _is_same_place(found: Agreement) -> bool:
    return (
        found.overlap >= LEAST_OVERLAP and found.same >= SAME and found.likeness >= LEAST_LIKENESS
    )


def _loose_edge(old: Kept, heir: Kept) -> Edge:
    """How two lie to each other as the map is now."""
    old_from_heir: Sim3 = old.world.inverse() @ heir.world
    shift = LOOSE_DEPTHS * heir.depth
    return Edge(old.id, heir.id, old_from_heir, LOOSE_TURN_RAD, shift, LOOSE_LOG_SCALE)
