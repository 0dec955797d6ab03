# SPDX-License-Identifier: Apache-2.0
"""The objects of the map, whoever finds them: units, identities, boxes, moves of keyframes.

Everything inside is in scene units: positions divided by the median depth of the first usable
keyframe, so that results do not depend on the scale of the world.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int32

from worldsystem_core.geometry.se3 import inverse
from worldsystem_core.objects import Candidates, MapObject, MapObjects
from worldsystem_core.reconstruction import Keyframe, ScaleState, Successor
from worldsystem_segment.config import SegmentConfig
from worldsystem_segment.objects.boxes import oriented_box
from worldsystem_segment.objects.view import View, enough, make_view, scene_unit, usable
from worldsystem_segment.objects.world_track import Detection, WorldTrack
from worldsystem_segment.objects.world_tracker import WorldTracker

KEYFRAMES_BETWEEN_CLEANINGS = 64
UP_DIGITS = 3
"""Of `up`, for boxes: a twentieth of a degree."""


@dataclass(frozen=True)
class Named:
    """What a back-end calls an object."""

    label: str
    candidates: Candidates = ()


Box = tuple[Float64[np.ndarray, "4 4"], Float64[np.ndarray, "3"]]  # world_from_box, edges
Naming = Callable[[WorldTrack], Named | None]  # None: not asked for


class ObjectMap:
    """Takes detections keyframe by keyframe; not thread-safe."""

    def __init__(self, config: SegmentConfig) -> None:
        self.config = config
        self.tracker = WorldTracker(config)
        self.scale = ScaleState.SCENE
        self.unit: float | None = None  # world units in a scene unit
        self.up: Float[np.ndarray, "3"] | None = None  # of the world, as far as is known
        self._unit_at: dict[int, float] = {}
        self._boxes: dict[int, tuple[tuple[int, int, bytes], Box]] = {}
        self._unusable = 0

    def view_of(self, keyframe: Keyframe) -> tuple[View, Bool[np.ndarray, "h w"]] | None:
        """The keyframe in scene units and its usable pixels; None (and counted) with too few."""
        mask = usable(keyframe, self.config.min_confidence)
        if not enough(keyframe, mask):
            self._unusable += 1
            return None
        self.unit = self.unit or scene_unit(keyframe, mask)
        self._unit_at[keyframe.id] = self.unit * self.tracker.size_of(keyframe.id)
        self.scale = keyframe.scale
        return make_view(keyframe, mask, self.unit, self.config.work_width_px), mask

    def update(
        self,
        view: View,
        detections: list[Detection],
        stamp_ns: int,
        *,
        owner: Int32[np.ndarray, "h w"] | None = None,
        needed: Iterable[int] = (),
    ) -> list[int]:
        """Ids of the detections (0 = refused), as `WorldTracker.update` says.

        Keyframes in `needed` keep their poses, too.
        """
        ids = self.tracker.update(view, detections, stamp_ns, owner)
        if self.tracker.feed_count % KEYFRAMES_BETWEEN_CLEANINGS == 0:
            self.tracker.forget_poses(set(needed))
            self._unit_at = {k: u for k, u in self._unit_at.items() if self.tracker.knows(k)}
        return ids

    def move(
        self,
        world_from_cam: dict[int, Float64[np.ndarray, "4 4"]],
        point_scale: dict[int, float] | None = None,
        scale: ScaleState | None = None,
    ) -> None:
        """Let what hangs on the named keyframes follow their new poses and sizes."""
        if self.unit is None:
            return
        told = {k: v for k, v in (point_scale or {}).items() if k in self._unit_at}
        if scale is not None and scale is not self.scale and told:
            self.scale = scale
            units = [factor * self._unit_at[keyframe_id] for keyframe_id, factor in told.items()]
            self.unit = float(np.median(units))
        sizes = {k: factor * self._unit_at[k] / self.unit for k, factor in told.items()}
        scaled = {}
        for keyframe_id, pose in world_from_cam.items():
            scaled[keyframe_id] = pose.astype(np.float64).copy()
            scaled[keyframe_id][:3, 3] /= self.unit
        self.tracker.move(scaled, sizes)

    def unit_at(self, keyframe_id: int) -> float:
        """World units in a scene unit when the keyframe's points were told last: sizes that are
        told of it are relative to these points."""
        return self._unit_at.get(keyframe_id, self.unit or 1.0)

    def told_again(self, keyframe_id: int) -> None:
        """The keyframe's points were told anew, as large as they are by now: factors that come are
        on these."""
        if self.unit is not None and keyframe_id in self._unit_at:
            self._unit_at[keyframe_id] = self.unit * self.tracker.size_of(keyframe_id)

    def hang_on(self, keyframe_id: int, heir: Successor) -> Float64[np.ndarray, "4 4"] | None:
        """Let what hangs on a keyframe hang on the one that stands in for it from now on.

        Returns the rigid `heir_from_keyframe` [scene units]; None when nothing hangs on it.
        """
        old = self.tracker.pose(keyframe_id)
        if self.unit is None or old is None:
            return None
        pose = heir.world_from_cam.astype(np.float64)
        pose[:3, 3] /= self.unit
        size = heir.point_scale * self._unit_at.setdefault(heir.id, self.unit) / self.unit
        self.tracker.hang_on(keyframe_id, heir.id, pose, size)
        there = self.tracker.pose(heir.id)
        return None if there is None else inverse(there) @ old

    def remove(self, keyframe_ids: Iterable[int]) -> None:
        """Forget what hangs on these keyframes; after the last one units begin anew."""
        self.tracker.remove(keyframe_ids)
        if not self.tracker.knows_any:
            self.restore(None, ScaleState.SCENE, None, {})

    def restore(
        self,
        unit: float | None,
        scale: ScaleState,
        up: Float[np.ndarray, "3"] | None,
        unit_at: Mapping[int, float],
    ) -> None:
        """Go on in the units of a saved map; `unit_at` is `unit_at` of each of its keyframes."""
        self.unit, self.scale, self.up = unit, scale, up
        self._unit_at = dict(unit_at)

    def objects(
        self, stamp_ns: int, naming: Naming, up: Float[np.ndarray, "3"] | None
    ) -> MapObjects:
        """Confirmed objects that are where they were seen last, as oriented boxes [world units]."""
        self.up = self.up if up is None else up
        found = []
        for track in self.tracker.tracks.values():
            if self.tracker.confirmed(track) and self.tracker.present(track):
                named = naming(track)
                if named is not None:
                    found.append(self._map_object(track, named))
        shown = {item.id for item in found}
        self._boxes = {number: box for number, box in self._boxes.items() if number in shown}
        return MapObjects(stamp_ns=stamp_ns, objects=tuple(found), scale=self.scale)

    def counters(self) -> dict[str, int]:
        """What is held, and what was let go and why, since the start."""
        tracks = list(self.tracker.tracks.values())
        return {
            "tracks": len(tracks),
            "track_points": sum(len(track.points) for track in tracks),
            "keyframes_unusable": self._unusable,
            "voxels_dropped": self.tracker.voxels_dropped,
            "births_refused": self.tracker.births_refused,
            "tentative_dropped": self.tracker.tentative_dropped,
            "forgotten": self.tracker.forgotten,
            "vanished": self.tracker.vanished,
            "merged": self.tracker.merged,
        }

    def _box(self, track: WorldTrack) -> Box:
        """Its oriented box, worked out again only when its points have changed, or `up` by more
        than a rounding: a little it does with each keyframe."""
        up = None if self.up is None else np.round(self.up, UP_DIGITS) + 0.0
        state = (id(track.points), track.points.changes, b"" if up is None else up.tobytes())
        held = self._boxes.get(track.id)
        if held is None or held[0] != state:
            held = (state, oriented_box(track.points.solid, up))
            self._boxes[track.id] = held
        world_from_box, size = held[1]
        return world_from_box.copy(), size

    def _map_object(self, track: WorldTrack, named: Named) -> MapObject:
        unit = self.unit or 1.0
        world_from_box, size = self._box(track)
        world_from_box[:3, 3] *= unit
        return MapObject(
            id=track.id,
            label=named.label,
            score=track.certainty,
            world_from_box=world_from_box,
            size=size * unit,
            point_count=len(track.points),
            last_seen_ns=track.last_seen_ns,
            first_seen_ns=track.first_seen_ns,
            sightings=track.hits,
            moving=track.moving,
            candidates=named.candidates,
        )
