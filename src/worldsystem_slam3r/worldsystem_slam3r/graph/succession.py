# SPDX-License-Identifier: Apache-2.0
"""Newer keyframes stand in for older ones that show the same from the same place.

So the map grows with the area that was seen, not with the time it was looked at, and it shows what
is there now. ORB-SLAM culls keyframes whose points others see (Mur-Artal, Montiel, Tardós, IEEE
T-RO 31(5), 2015, section VI.E); here the older one of a pair goes, since the newer one knows what
has changed meanwhile.
"""

from __future__ import annotations

import numpy as np

from worldsystem_core.geometry.se3 import rotation_angle_rad
from worldsystem_core.reconstruction import RemovedKeyframes, Successor
from worldsystem_slam3r.graph.atlas import Atlas, Kept
from worldsystem_slam3r.graph.loops import LoopFinder, is_strong
from worldsystem_slam3r.graph.verify import Link, surfaces
from worldsystem_slam3r.maps.keeper import MapKeeper
from worldsystem_slam3r.scale.metric import MetricScale

COVERED = 0.75
"""Share of each one's known surface that the other must see."""
NEAR_DEPTHS = 0.15
NEAR_RAD = np.deg2rad(10.0)


class Succession:
    """Keeps believed links of equal views until the newer keyframe has come to rest.

    `after` is how many keyframes the back-end still refines; until then it may withdraw them.
    """

    def __init__(
        self, atlas: Atlas, finder: LoopFinder, maps: MapKeeper, metric: MetricScale, after: int
    ) -> None:
        self._atlas = atlas
        self._finder = finder
        self._maps = maps
        self._metric = metric
        self._after = after
        self._waiting: dict[int, Link] = {}

    def note(self, links: list[Link]) -> None:
        """Of these links, remember those between equal views."""
        for link in links:
            if equal_views(link, self._atlas.keyframes[link.a], self._atlas.keyframes[link.b]):
                self._waiting[link.a] = link

    def take_due(self) -> list[RemovedKeyframes]:
        """Let the older keyframes go whose successors are refined no more."""
        newest = max(self._atlas.newest.values(), default=0)
        due = [link for link in self._waiting.values() if link.b + self._after < newest]
        for link in due:
            del self._waiting[link.a]
        successors = {link.a: self._replaced(link) for link in due if self._is_sound(link)}
        return [RemovedKeyframes(tuple(successors), successors)] if successors else []

    def _is_sound(self, link: Link) -> bool:
        """Whether both are still there and the graph still believes the link."""
        atlas = self._atlas
        kept = (atlas.keyframes.get(link.a), atlas.keyframes.get(link.b))
        if not all(each is not None and atlas.is_placed(each.submap) for each in kept):
            return False
        return (link.a, link.b) in atlas.graph.edges

    def _replaced(self, link: Link) -> Successor:
        heir = self._atlas.keyframes[link.b]
        self._metric.hang_on(link.a, link.b)
        self._finder.forget(link.a)
        self._maps.remove(link.a)
        self._atlas.graph.contract(link.a, link.b)
        self._atlas.remove(link.a)
        return Successor(heir.id, heir.told.pose, heir.told.scale / heir.first_unit)


def equal_views(link: Link, old: Kept, new: Kept) -> bool:
    """Whether two keyframes show the same from nearly the same place, each all of the other's."""
    if old.station is None or new.station is None or not is_strong(link):
        return False
    step = float(np.linalg.norm(link.a_from_b.translation)) / (link.a_from_b.scale * new.depth)
    turn = rotation_angle_rad(link.a_from_b.rotation)
    if link.overlap < COVERED or step > NEAR_DEPTHS or turn > NEAR_RAD:
        return False
    return surfaces(new.station, old.station, link.a_from_b.inverse()).overlap > COVERED
