# SPDX-License-Identifier: Apache-2.0
"""Finds the keyframes that show what a new one shows, and decides which to believe."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from worldsystem_core.geometry.se3 import rotation_angle_rad
from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_slam3r.graph.atlas import Atlas, Kept
from worldsystem_slam3r.graph.places import PlaceIndex
from worldsystem_slam3r.graph.verify import Link, Refusal, Station, verify

log = logging.getLogger(__name__)

CANDIDATES = 3
LINKS = 2
RECENT = 8
NEAR_STEPS = 1
LEAST_SCORE = 0.35
"""Of the votes that the keyframe before gets."""
DRIFT_WAYS = 0.15
DRIFT_DEPTHS = 0.15
DRIFT_RAD = np.deg2rad(30.0)
DRIFT_LOG_SCALE = float(np.log(1.6))
STRONG_INLIERS = 50
STRONG_OVERLAP = 0.3
STRONG_SAME = 0.75
AGREE_DEPTHS = 0.1
AGREE_RAD = np.deg2rad(4.0)
AGREE_LOG_SCALE = 0.1
WAITING = 5


@dataclass(frozen=True, eq=False)
class _Waiting:
    """A link that another one has to confirm, and the keyframe's place that it implies."""

    link: Link
    submap: int
    world_from_submap: Sim3


class LoopFinder:
    """Asks the place index, verifies, and holds weak evidence until a second link agrees.

    `refused` counts by reason what was not believed.
    """

    def __init__(
        self, atlas: Atlas, similar: Callable[[int, int], list[int]] = lambda _, __: []
    ) -> None:
        self._atlas = atlas
        self._similar = similar
        self.index = PlaceIndex()
        self.refused: Counter[str] = Counter()
        self._waiting: deque[_Waiting] = deque(maxlen=WAITING)

    def find(self, kept: Kept) -> list[Link]:
        """Believed links from earlier keyframes to this one, which is then remembered too."""
        station = kept.station
        if station is None or not len(self.index):
            self._remember(kept)
            return []
        links: list[Link] = []
        for candidate in self._candidates(kept, station):
            if len(links) == LINKS:
                break
            link = self._verified(self._atlas.keyframes[candidate], kept)
            if link is not None:
                links.append(link)
        self._remember(kept)
        return self._believed(links, kept)

    def _candidates(self, kept: Kept, station: Station) -> list[int]:
        """Keyframes that may show the same: by the back-end's own retrieval, and by words."""
        without = self._near(kept)
        before = self._before(kept)
        votes = self.index.votes(station.features)
        least = 0.0 if before is None else self.index.share_of(before, votes)
        words = self.index.best(votes, CANDIDATES, without)
        if not self._atlas.is_placed(kept.submap):  # its own would leave no place for the map's
            words = self.index.best(votes, CANDIDATES, without | self._held()) + words
        found = [word.id for word in words if word.score >= LEAST_SCORE * least]
        liked = self._similar(kept.id, CANDIDATES + len(without))
        own = [key for key in liked if key not in without and key in self._atlas.keyframes]
        return list(dict.fromkeys([*own[:CANDIDATES], *found]))

    def forget(self, id: int) -> None:
        """Never find this keyframe again; call while the atlas still has it."""
        kept = self._atlas.keyframes.get(id)
        if kept is not None and kept.station is not None:
            self.index.remove(id, kept.station.features)

    def rejected(self, key: tuple[int, int]) -> None:
        """The graph does not believe a loop that was found, and has dropped it."""
        log.warning("the loop between keyframes %d and %d does not fit: dropped", *key)
        self.refused["graph"] += 1

    def _remember(self, kept: Kept) -> None:
        if kept.station is not None:
            self.index.add(kept.id, kept.station.features)

    def _near(self, kept: Kept) -> set[int]:
        """Keyframes that need no link: the newest of this sub-map, and the graph's neighbours."""
        own = [k.id for k in self._atlas.keyframes.values() if k.submap == kept.submap]
        recent = sorted(own)[-RECENT - 1 :]
        return set(recent) | self._atlas.graph.neighbours([kept.id], NEAR_STEPS)

    def _held(self) -> set[int]:
        keyframes = self._atlas.keyframes.values()
        return {k.id for k in keyframes if not self._atlas.is_placed(k.submap)}

    def _before(self, kept: Kept) -> int | None:
        own = (k.id for k in self._atlas.keyframes.values() if k.submap == kept.submap)
        return max((key for key in own if key != kept.id), default=None)

    def _verified(self, old: Kept, new: Kept) -> Link | None:
        assert new.station is not None
        if old.station is None:
            return None
        found = verify(old.station, new.station)
        if isinstance(found, Refusal):
            self.refused[found.reason] += 1
            return None
        if self.same_part(old, new) and not self._plausible(old, new, found):
            self.refused["drift"] += 1
            return None
        return found

    def same_part(self, old: Kept, new: Kept) -> bool:
        """Whether measurements join them; where a place was guessed none do."""
        if old.submap == new.submap:
            return True
        part = self._atlas.graph.parts()
        return part[old.id] == part[new.id]

    def _plausible(self, old: Kept, new: Kept, link: Link) -> bool:
        """Whether the way between them can have drifted by as much as the link says."""
        implied = old.world @ link.a_from_b
        shift = float(np.linalg.norm(implied.translation - new.world.translation))
        turn = rotation_angle_rad(implied.rotation.T @ new.world.rotation)
        log_scale = abs(float(np.log(implied.scale / new.world.scale)))
        return (
            shift < self.drift_between(old, new)
            and turn < DRIFT_RAD
            and log_scale < DRIFT_LOG_SCALE
        )

    def drift_between(self, old: Kept, new: Kept) -> float:
        """By how much the way between two keyframes can have drifted [world units]."""
        return DRIFT_DEPTHS * new.depth * new.world.scale + DRIFT_WAYS * self._way(old, new)

    def _way(self, old: Kept, new: Kept) -> float:
        """Length of the way between two keyframes [world units]; of one that is held back, in its
        own sub-map."""
        placed = self._atlas.is_placed
        between = [
            k
            for k in self._atlas.keyframes.values()
            if old.id <= k.id <= new.id
            and (placed(k.submap) if placed(new.submap) else k.submap == new.submap)
        ]
        ordered = sorted(between, key=lambda k: k.id)
        places = np.array([k.world.translation for k in ordered]).reshape(-1, 3)
        return float(np.linalg.norm(np.diff(places, axis=0), axis=1).sum())

    def _believed(self, links: list[Link], kept: Kept) -> list[Link]:
        """Strong links, and weak ones that another link of these keyframes agrees with."""
        believed: list[Link] = []
        for link in links:
            implied = self._atlas.keyframes[link.a].world @ link.a_from_b
            correction = implied @ Sim3.from_pose(kept.submap_from_cam).inverse()
            agreeing = [
                other
                for other in self._waiting
                if other.submap == kept.submap
                and {other.link.a, other.link.b} <= self._atlas.keyframes.keys()
                and _agree(correction, other.world_from_submap, kept, implied.scale)
            ]
            if agreeing or is_strong(link):
                believed += [other.link for other in agreeing] + [link]
                self._waiting = deque((w for w in self._waiting if w not in agreeing), WAITING)
            else:
                self._waiting.append(_Waiting(link, kept.submap, correction))
                self.refused["unconfirmed"] += 1
        return believed


def is_strong(link: Link) -> bool:
    """Whether a link needs no second one."""
    return (
        link.inliers >= STRONG_INLIERS
        and link.overlap >= STRONG_OVERLAP
        and link.same >= STRONG_SAME
    )


def _agree(one: Sim3, other: Sim3, at: Kept, unit: float) -> bool:
    """Whether two corrections put a keyframe in the same place."""
    keyframe = Sim3.from_pose(at.submap_from_cam)
    a, b = one @ keyframe, other @ keyframe
    return (
        float(np.linalg.norm(a.translation - b.translation)) < AGREE_DEPTHS * at.depth * unit
        and rotation_angle_rad(a.rotation.T @ b.rotation) < AGREE_RAD
        and abs(float(np.log(a.scale / b.scale))) < AGREE_LOG_SCALE
    )
