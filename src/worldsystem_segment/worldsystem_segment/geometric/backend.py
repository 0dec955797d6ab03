# SPDX-License-Identifier: Apache-2.0
"""The weight-free back-end: ground and walls away, cut the rest, track it in the map."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32

from worldsystem_core.objects import MapObject, MapObjects, Track, TrackFrame, TrackState
from worldsystem_core.reconstruction import Keyframe, ScaleState
from worldsystem_segment.config import SegmentConfig
from worldsystem_segment.geometric.boxes import oriented_box
from worldsystem_segment.geometric.detections import Evidence, detections_of
from worldsystem_segment.geometric.instances import cut_instances
from worldsystem_segment.geometric.labels import colour_name, size_name
from worldsystem_segment.geometric.movers import MoverFinder
from worldsystem_segment.geometric.structure import Structure, StructureFinder
from worldsystem_segment.geometric.tags import find_tags
from worldsystem_segment.geometric.view import enough, make_view, scene_unit, usable
from worldsystem_segment.geometric.world_track import WorldTrack
from worldsystem_segment.geometric.world_tracker import WorldTracker
from worldsystem_segment.pixel_boxes import PixelBox, pixel_boxes
from worldsystem_segment.prompt import Description, Phrase, selects

KEYFRAMES_BETWEEN_CLEANINGS = 64
KEYFRAMES_BETWEEN_TAGS = 3  # looking costs 5 ms, and a tag stays with its object
METRIC_UP = np.array([0.0, 0.0, 1.0], np.float32)


@dataclass(frozen=True, eq=False)
class _Region:
    """Pixels of the thinned picture that one id is drawn on."""

    id: int
    mask: Bool[np.ndarray, "h w"]
    described: Description
    track: WorldTrack | None


class GeometricBackend:
    """Instances of a keyframe's pointmap with ids that live in the map; see docs of the stage.

    Everything inside is in scene units: pointmaps and positions divided by the median depth of the
    first usable keyframe, so that results do not depend on the scale of the world.
    """

    def __init__(self, config: SegmentConfig) -> None:
        self.config = config
        self._tracker = WorldTracker(config)
        self._structure = StructureFinder(config, self._tracker.take_id)
        self._movers = MoverFinder()
        self._unit: float | None = None
        self._scale = ScaleState.SCENE
        self._unit_at: dict[int, float] = {}
        self._unusable = 0

    def feed(self, keyframe: Keyframe, phrases: Sequence[Phrase]) -> TrackFrame:
        """Segment and track one keyframe; one without usable points yields no tracks."""
        mask = usable(keyframe, self.config.min_confidence)
        if not enough(keyframe, mask):
            self._unusable += 1
            return _frame(keyframe, (), np.zeros(keyframe.pointmap.shape[:2], np.uint16))
        self._unit = self._unit or scene_unit(keyframe, mask)
        self._unit_at[keyframe.id] = self._unit
        self._scale = keyframe.scale
        view = make_view(keyframe, mask, self._unit, self.config.work_width_px)
        look = self._tracker.feed_count % KEYFRAMES_BETWEEN_TAGS == 0
        with ThreadPoolExecutor(1) as beside:  # pictures there, geometry here: OpenCV shares cores
            flow = beside.submit(self._movers.compare, view)
            tags = beside.submit(find_tags, view.rgb) if look else None
            structure = self._structure.find(view, self._fixed_up(), self._tracker.pose)
            labels = cut_instances(view, structure.pool, structure.up_cam, self.config)
        evidence = Evidence(flow.result(), tuple(tags.result()) if tags else ())
        labels, detections = detections_of(
            view, labels, structure, self.config.max_extent, evidence=evidence
        )
        ids = self._tracker.update(view, detections, keyframe.stamp_ns)
        regions = self._regions(labels, ids, structure)
        self._clean()
        return self._reported(keyframe, mask, regions, phrases)

    def move(
        self,
        world_from_cam: dict[int, Float64[np.ndarray, "4 4"]],
        point_scale: dict[int, float] | None = None,
        scale: ScaleState | None = None,
    ) -> None:
        """Re-anchor voxels, walls and the up direction of the named keyframes."""
        if self._unit is None:
            return
        told = {k: v for k, v in (point_scale or {}).items() if k in self._unit_at}
        if scale is not None and scale is not self._scale and told:
            self._scale = scale
            units = [factor * self._unit_at[keyframe_id] for keyframe_id, factor in told.items()]
            self._unit = float(np.median(units))
        sizes = {k: factor * self._unit_at[k] / self._unit for k, factor in told.items()}
        scaled = {}
        for keyframe_id, pose in world_from_cam.items():
            scaled[keyframe_id] = pose.astype(np.float64).copy()
            scaled[keyframe_id][:3, 3] /= self._unit
        self._movers.forget()
        self._tracker.move(scaled, sizes)

    def remove(self, ids: Sequence[int]) -> None:
        """Forget voxels, walls and up directions that hang on the named keyframes."""
        self._tracker.remove(ids)
        self._structure.forget(set(ids))

    def objects(self, stamp_ns: int, phrases: Sequence[Phrase]) -> MapObjects:
        """Confirmed tracks as oriented boxes [world units], upright where up is known."""
        found = []
        for track in self._tracker.tracks.values():
            described = self._describe(track)
            known = self._tracker.confirmed(track) and self._tracker.present(track)
            if known and _wanted(described, phrases):
                found.append(self._map_object(track, described.label))
        return MapObjects(stamp_ns=stamp_ns, objects=tuple(found), scale=self._scale)

    def counters(self) -> dict[str, int]:
        """What was let go and why, since the start."""
        return {
            "keyframes_unusable": self._unusable,
            "voxels_dropped": self._tracker.voxels_dropped,
            "births_refused": self._tracker.births_refused,
            "tentative_dropped": self._tracker.tentative_dropped,
            "vanished": self._tracker.vanished,
            "merged": self._tracker.merged,
        }

    def _fixed_up(self) -> Float32[np.ndarray, "3"] | None:
        return METRIC_UP if self._scale is ScaleState.METRIC else None

    def _up_world(self) -> Float32[np.ndarray, "3"] | None:
        fixed = self._fixed_up()
        return self._structure.up_world(self._tracker.pose) if fixed is None else fixed

    def _box(
        self, track: WorldTrack
    ) -> tuple[Float64[np.ndarray, "4 4"], Float64[np.ndarray, "3"]]:
        return oriented_box(track.points.solid, self._up_world())

    def _describe(self, track: WorldTrack) -> Description:
        longest = float((track.points.high - track.points.low).max())
        noun, votes = track.nouns.most_common(1)[0]
        return Description(
            colour=colour_name(track.lab),
            size=size_name(longest),
            state="moving" if track.moving else "static",
            noun=noun if votes >= 0.4 * track.nouns.total() else "object",
            tags=frozenset(track.tags),
        )

    def _regions(
        self, labels: Int32[np.ndarray, "h w"], ids: list[int], structure: Structure
    ) -> list[_Region]:
        regions = []
        for region_id, noun, mask in structure.regions:
            regions.append(_Region(region_id, mask, Description("", "", "static", noun), None))
        for index, track_id in enumerate(ids, start=1):
            if track_id in self._tracker.tracks:
                track = self._tracker.tracks[track_id]
                regions.append(_Region(track_id, labels == index, self._describe(track), track))
        return regions

    def _reported(
        self,
        keyframe: Keyframe,
        usable_px: Bool[np.ndarray, "h w"],
        regions: list[_Region],
        phrases: Sequence[Phrase],
    ) -> TrackFrame:
        height, width = usable_px.shape
        stride = max(1, round(width / self.config.work_width_px))
        wanted = [region for region in regions if _wanted(region.described, phrases)]
        small = np.zeros(-(-height // stride) * -(-width // stride), np.uint16)
        small = small.reshape(-(-height // stride), -1)
        for index, region in enumerate(wanted, start=1):
            small[region.mask] = index
        drawn = small.repeat(stride, axis=0).repeat(stride, axis=1)[:height, :width]
        drawn = np.where(usable_px, drawn, np.uint16(0))
        places = pixel_boxes(drawn, len(wanted))
        pairs = [(r, place) for r, place in zip(wanted, places, strict=True) if place is not None]
        ids = np.array([0, *(region.id for region in wanted)], np.uint16)
        return _frame(keyframe, tuple(self._track(*pair) for pair in pairs), ids[drawn])

    def _track(self, region: _Region, place: PixelBox) -> Track:
        track = region.track
        sure = track is None or self._tracker.confirmed(track)
        hits = track.hits if track else self.config.confirm_hits
        return Track(
            id=region.id,
            label=region.described.label,
            score=hits / (hits + 1.0),
            box_px=place.box_px,
            area_px=place.area_px,
            age_frames=self._tracker.feed_count - track.first_feed if track else 0,
            state=TrackState.CONFIRMED if sure else TrackState.TENTATIVE,
        )

    def _map_object(self, track: WorldTrack, label: str) -> MapObject:
        unit = self._unit or 1.0
        world_from_box, size = self._box(track)
        world_from_box[:3, 3] *= unit
        return MapObject(
            id=track.id,
            label=label,
            score=track.hits / (track.hits + 1.0),
            world_from_box=world_from_box,
            size=size * unit,
            point_count=len(track.points),
            last_seen_ns=track.last_seen_ns,
            first_seen_ns=track.first_seen_ns,
            sightings=track.hits,
            moving=track.moving,
        )

    def _clean(self) -> None:
        if self._tracker.feed_count % KEYFRAMES_BETWEEN_CLEANINGS == 0:
            self._tracker.forget_poses(self._structure.keyframe_ids)


def _wanted(described: Description, phrases: Sequence[Phrase]) -> bool:
    # without a prompt every object is reported, structure never
    if not phrases:
        return described.noun not in ("floor", "wall")
    return any(selects(phrase, described) for phrase in phrases)


def _frame(
    keyframe: Keyframe,
    tracks: tuple[Track, ...],
    labels: np.ndarray[tuple[int, int], np.dtype[np.uint16]],
) -> TrackFrame:
    return TrackFrame(
        frame_id=keyframe.frame_id,
        keyframe_id=keyframe.id,
        stamp_ns=keyframe.stamp_ns,
        tracks=tracks,
        labels=labels,
    )
