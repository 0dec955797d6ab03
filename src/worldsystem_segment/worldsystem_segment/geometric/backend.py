# SPDX-License-Identifier: Apache-2.0
"""The weight-free back-end: ground and walls away, cut the rest, track it in the map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from jaxtyping import Float32, Float64, Int32

from worldsystem_core.objects import MapObjects, TrackFrame
from worldsystem_core.reconstruction import Keyframe, ScaleState, Successor
from worldsystem_segment.config import SegmentConfig
from worldsystem_segment.geometric.detections import Evidence, detections_of
from worldsystem_segment.geometric.instances import cut_instances
from worldsystem_segment.geometric.labels import colour_name, size_name
from worldsystem_segment.geometric.movers import MoverFinder
from worldsystem_segment.geometric.structure import Structure, StructureFinder
from worldsystem_segment.geometric.tags import find_tags
from worldsystem_segment.objects.object_map import Named, ObjectMap
from worldsystem_segment.objects.report import Region, empty_report, report, unseen_tracks
from worldsystem_segment.objects.view import View
from worldsystem_segment.objects.world_track import Detection, WorldTrack
from worldsystem_segment.prompt import Description, Phrase, PromptAnswer, parse_prompt, selects

KEYFRAMES_BETWEEN_TAGS = 3  # looking costs 5 ms, and a tag stays with its object
METRIC_UP = np.array([0.0, 0.0, 1.0], np.float32)
_PLAIN_NOUN_SHARE = 0.4


class GeometricBackend:
    """Instances of a keyframe's pointmap; ids live in the map (docs/segmentation.md)."""

    def __init__(self, config: SegmentConfig) -> None:
        self.config = config
        self.map = ObjectMap(config)
        self._structure = self._no_structure()
        self.instances = np.zeros((0, 0), np.int32)  # of the last keyframe, thinned, untracked
        self._movers = MoverFinder()
        self._beside = ThreadPoolExecutor(1, "segment-picture")

    def understand(self, text: str) -> PromptAnswer:
        """Which phrases of a prompt name colours, sizes, shapes, planes, motion or tags."""
        return parse_prompt(text)

    def feed(self, keyframe: Keyframe, phrases: Sequence[Phrase]) -> TrackFrame:
        """Segment and track one keyframe; one without usable points yields no tracks."""
        seen = self.map.view_of(keyframe)
        if seen is None:
            self.instances = np.zeros(keyframe.pointmap.shape[:2], np.int32)
            return empty_report(keyframe)
        view, usable_px = seen
        structure, detections = self._find(view)
        owner = self.instances.copy()
        for _, _, mask in structure.regions:
            owner[mask & (owner == 0)] = -1
        needed = self._structure.keyframe_ids | {view.keyframe_id}
        ids = self.map.update(view, detections, keyframe.stamp_ns, owner=owner, needed=needed)
        regions = self._regions(ids, structure, phrases)
        frame = report(keyframe, usable_px, regions, self.map.tracker)
        unseen = unseen_tracks(view, self.map.tracker, lambda track: self.name(track, phrases))
        return replace(frame, tracks=frame.tracks + unseen)

    def move(
        self,
        world_from_cam: dict[int, Float64[np.ndarray, "4 4"]],
        point_scale: dict[int, float] | None = None,
        scale: ScaleState | None = None,
    ) -> None:
        """Re-anchor voxels, walls and the up direction of the named keyframes."""
        self.map.move(world_from_cam, point_scale, scale)
        self._movers.follow(self.map.tracker.pose)

    def remove(self, ids: Sequence[int], successors: Mapping[int, Successor]) -> None:
        """Forget voxels, walls and up directions that hang on the named keyframes, or hang them on
        those that stand in for them."""
        for keyframe_id, heir in successors.items():
            heir_from_keyframe = self.map.hang_on(keyframe_id, heir)
            if heir_from_keyframe is not None:
                self._structure.hang_on(keyframe_id, heir.id, heir_from_keyframe)
        self.map.remove(ids)
        self._structure.forget(set(ids))
        self._movers.follow(self.map.tracker.pose)

    def objects(self, stamp_ns: int, phrases: Sequence[Phrase]) -> MapObjects:
        """Confirmed tracks as oriented boxes [world units], upright where up is known."""
        return self.map.objects(stamp_ns, lambda t: self.name(t, phrases), self._up_world())

    def ids_changed(self) -> None:
        """Ground and walls get ids of the map anew: those they have may be things' now."""
        self._structure = self._no_structure()
        self._movers.forget()

    def counters(self) -> dict[str, int]:
        """What was let go and why, since the start."""
        return self.map.counters()

    @property
    def problem(self) -> str:
        """What fails here ends the stage: there is nothing that only a part could lack."""
        return ""

    def close(self) -> None:
        """End the thread that looks at pictures."""
        self._beside.shutdown()

    def name(self, track: WorldTrack, phrases: Sequence[Phrase]) -> Named | None:
        """What the track is called, with the shapes that views suggested; None: not asked for."""
        described = describe(track)
        if not _wanted(described, phrases, track.certainty):
            return None
        votes = track.nouns.most_common()
        total = max(sum(share for _, share in votes), 1e-9)
        shapes = [(replace(described, noun=noun).label, share / total) for noun, share in votes]
        return Named(described.label, tuple(shapes))

    def _no_structure(self) -> StructureFinder:
        tracker = self.map.tracker
        return StructureFinder(self.config, tracker.take_id, tracker.give_back_id)

    def _find(self, view: View) -> tuple[Structure, list[Detection]]:
        """Structure and instances; the picture is looked at in a thread beside the geometry."""
        look = self.map.tracker.feed_count % KEYFRAMES_BETWEEN_TAGS == 0
        flow = self._beside.submit(self._movers.compare, view)
        tags = self._beside.submit(find_tags, view.rgb) if look else None
        structure = self._structure.find(view, self._fixed_up(), self.map.tracker.pose)
        labels = cut_instances(view, structure.pool, structure.up_cam, self.config)
        evidence = Evidence(flow.result(), tags.result() if tags else ())
        self.instances, detections = detections_of(
            view, labels, structure, self.config.max_extent, evidence=evidence
        )
        return structure, detections

    def _fixed_up(self) -> Float32[np.ndarray, "3"] | None:
        return METRIC_UP if self.map.scale is ScaleState.METRIC else None

    def _up_world(self) -> Float32[np.ndarray, "3"] | None:
        fixed = self._fixed_up()
        return self._structure.up_world(self.map.tracker.pose) if fixed is None else fixed

    def _regions(
        self, ids: list[int], structure: Structure, phrases: Sequence[Phrase]
    ) -> list[Region]:
        labels: Int32[np.ndarray, "h w"] = self.instances
        regions = []
        for region_id, noun, mask in structure.regions:
            if _wanted(Description("", "", "static", noun), phrases, 1.0):
                regions.append(Region(region_id, mask, Named(noun), None))
        for index, track_id in enumerate(ids, start=1):
            track = self.map.tracker.tracks.get(track_id)
            named = self.name(track, phrases) if track else None
            if named is not None:
                regions.append(Region(track_id, labels == index, named, track))
        return regions


def describe(track: WorldTrack) -> Description:
    """What geometry and colour say of a track."""
    longest = float((track.points.high - track.points.low).max())
    noun, votes = track.nouns.most_common(1)[0]
    return Description(
        colour=colour_name(track.lab),
        size=size_name(longest),
        state="moving" if track.moving else "static",
        noun=noun if votes >= _PLAIN_NOUN_SHARE * track.nouns.total() else "object",
        tags=frozenset(track.tags),
    )


def _wanted(described: Description, phrases: Sequence[Phrase], score: float) -> bool:
    # without a prompt every object is reported, structure never
    if not phrases:
        return described.noun not in ("floor", "wall")
    return any(score >= phrase.threshold and selects(phrase, described) for phrase in phrases)
