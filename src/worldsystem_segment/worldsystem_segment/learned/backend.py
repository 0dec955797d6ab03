# SPDX-License-Identifier: Apache-2.0
"""Back-ends with networks: what they see in the picture becomes objects of the map."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import cv2
import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8

from worldsystem_core.geometry.se3 import transform
from worldsystem_core.middle_parts import amid_black, middle_of
from worldsystem_core.objects import MapObjects, TrackFrame
from worldsystem_core.reconstruction import Keyframe, ScaleState, Successor
from worldsystem_segment.config import SegmentConfig
from worldsystem_segment.geometric.labels import median_lab
from worldsystem_segment.geometric.movers import EgoFlow, MoverFinder
from worldsystem_segment.learned.kept_masks import KeptMasks
from worldsystem_segment.learned.mask_sessions import ObjectMask
from worldsystem_segment.learned.mask_tracker import Followed
from worldsystem_segment.objects.object_map import Named, ObjectMap
from worldsystem_segment.objects.report import Region, empty_report, report, unseen_tracks
from worldsystem_segment.objects.view import View
from worldsystem_segment.objects.world_track import Detection, WorldTrack
from worldsystem_segment.prompt import Phrase, PromptAnswer, phrases_of

MAX_POINTS = 2500
MIN_PIXELS = 12
RIM_PX = 2  # masks reach a little over the edge, on to what lies behind
NO_PROMPT = (
    "no prompt is set, and networks find what they are asked for alone; set segmenter.prompt, or "
    'say `worldsystem objects prompt "person. red car"`'
)
NO_SCORE = "the least score after `@` is a number in [0, 1], as in `person @0.4`"
DEPTH_SPREAD = 3.0  # times the middle spread: farther points belong to something else


class ObjectFollower(Protocol):
    """What follows objects through the pictures: a `MaskTracker`, or SAM 3."""

    followed: dict[int, Followed]

    @property
    def problem(self) -> str: ...
    def step(
        self, rgb: UInt8[np.ndarray, "h w 3"], phrases: Mapping[str, float]
    ) -> dict[int, ObjectMask]: ...
    def counters(self) -> dict[str, int]: ...
    def close(self) -> None: ...


class LearnedBackend:
    """Masks of an `ObjectFollower`, lifted with the keyframe's pointmap; see docs/segmentation.md.

    `look` takes every picture of the video where that is possible; a keyframe whose picture has
    been looked at costs no network any more. A keyframe may show the middle of its picture alone.
    """

    def __init__(self, config: SegmentConfig, tracker: ObjectFollower) -> None:
        self.config = config
        self.map = ObjectMap(config)
        self._tracker = tracker
        self._movers = MoverFinder()
        self._seen = KeptMasks()
        self._film: tuple[int, ...] | None = None  # (h, w) of the video's last picture
        self._nothing_asked = False
        self._last_id: dict[int, int] = {}  # followed object → id in the map

    def understand(self, text: str) -> PromptAnswer:
        """Any phrase can be looked for, unless what its `@` says is no score; without one there is
        nothing that networks would find."""
        least, parts = self.config.prompt_threshold, phrases_of(text)
        phrases = tuple(
            Phrase(part, threshold=least if given is None else given)
            for part, given in parts
            if "@" not in part
        )
        refused = tuple(part for part, _ in parts if "@" in part)
        advice = NO_SCORE if refused else "" if phrases else NO_PROMPT
        return PromptAnswer(phrases, refused, advice=advice)

    def look(
        self, frame_id: int, rgb: UInt8[np.ndarray, "h w 3"], phrases: Sequence[Phrase]
    ) -> None:
        """Follow the objects through one picture of the video."""
        self._film = rgb.shape[:2]
        self._step(frame_id, rgb, phrases)

    def feed(self, keyframe: Keyframe, phrases: Sequence[Phrase]) -> TrackFrame:
        """Lift the masks of a keyframe's picture into the map."""
        if keyframe.frame_id not in self._seen:
            picture = amid_black(keyframe.rgb, self._film or keyframe.rgb.shape)
            self._step(keyframe.frame_id, picture, phrases)
        masks = self._masks_of(keyframe)
        seen = self.map.view_of(keyframe)
        if seen is None:
            return empty_report(keyframe)
        view, usable_px = seen
        flow = self._movers.compare(view)
        found = ((i, self._lifted(view, flow, i, mask)) for i, mask in masks.items())
        lifted = {i: detection for i, detection in found if detection is not None}
        needed = (view.keyframe_id,)
        ids = self.map.update(view, list(lifted.values()), keyframe.stamp_ns, needed=needed)
        self._last_id |= dict(zip(lifted, ids, strict=True))
        self._last_id = {k: v for k, v in self._last_id.items() if k in self._tracker.followed}
        self._heed_new_names(lifted, phrases)
        shown = {i: masks[i] for i in lifted}  # what is too small is told as unseen
        regions = self._regions(view, shown, phrases)
        frame = report(keyframe, usable_px, regions, self.map.tracker)
        unseen = unseen_tracks(view, self.map.tracker, lambda track: self.name(track, phrases))
        return replace(frame, tracks=frame.tracks + unseen)

    def move(
        self,
        world_from_cam: dict[int, Float64[np.ndarray, "4 4"]],
        point_scale: dict[int, float] | None = None,
        scale: ScaleState | None = None,
    ) -> None:
        """Let what the named keyframes saw follow them."""
        self.map.move(world_from_cam, point_scale, scale)
        self._movers.follow(self.map.tracker.pose)

    def remove(self, ids: Sequence[int], successors: Mapping[int, Successor]) -> None:
        """Forget what only the named keyframes saw, or hang it on those that stand in for them."""
        for keyframe_id, heir in successors.items():
            self.map.hang_on(keyframe_id, heir)
        self.map.remove(ids)
        self._movers.follow(self.map.tracker.pose)

    def objects(self, stamp_ns: int, phrases: Sequence[Phrase]) -> MapObjects:
        """Confirmed objects, in boxes that stand upright where the map is metric."""
        metric = self.map.scale is ScaleState.METRIC
        up = np.array([0.0, 0.0, 1.0]) if metric else None
        return self.map.objects(stamp_ns, lambda track: self.name(track, phrases), up)

    def ids_changed(self) -> None:
        """What is followed gets an id of the map anew."""
        self._last_id.clear()
        self._movers.forget()

    def name(self, track: WorldTrack, phrases: Sequence[Phrase]) -> Named | None:
        """The phrase most votes are for, among those of the prompt; None when it holds none."""
        votes = track.nouns.most_common()
        total = max(sum(share for _, share in votes), 1e-9)
        candidates = tuple((label, share / total) for label, share in votes)
        wanted = {phrase.text for phrase in phrases}
        named = [label for label, _ in votes if label in wanted or not wanted]
        if named:
            return Named(named[0], candidates)
        return None if wanted else Named("object", candidates)

    def counters(self) -> dict[str, int]:
        """What was let go and why, since the start."""
        return self.map.counters() | self._tracker.counters()

    @property
    def problem(self) -> str:
        """Why no new objects are found, or no more; empty while they are."""
        return self._tracker.problem or (NO_PROMPT if self._nothing_asked else "")

    def close(self) -> None:
        """End the detector's thread."""
        self._tracker.close()

    def _step(
        self, frame_id: int, rgb: UInt8[np.ndarray, "h w 3"], phrases: Sequence[Phrase]
    ) -> None:
        self._nothing_asked = not phrases
        self._seen.keep(frame_id, self._tracker.step(rgb, _least_scores(phrases)))

    def _masks_of(self, keyframe: Keyframe) -> dict[int, ObjectMask]:
        """What the keyframe shows of what is followed."""
        followed = self._tracker.followed  # what is retired meanwhile has no name any more
        shown = {
            number: replace(mask, mask=middle_of(mask.mask, keyframe.rgb.shape))
            for number, mask in self._seen[keyframe.frame_id].items()
            if number in followed
        }
        return {number: mask for number, mask in shown.items() if mask.area_px}

    def _lifted(
        self, view: View, flow: EgoFlow | None, object_id: int, mask: ObjectMask
    ) -> Detection | None:
        pixels = _inner_pixels(view, mask.mask)
        if len(pixels) < MIN_PIXELS:
            return None
        points = view.points_at(pixels[:: max(1, len(pixels) // MAX_POINTS)])
        points = points[_one_thing(points[:, 2])]
        world = transform(view.world_from_cam, points)
        low, high = np.flatnonzero(mask.mask.any(axis=1)), np.flatnonzero(mask.mask.any(axis=0))
        height, width = mask.mask.shape
        cut = low[0] == 0 or high[0] == 0 or low[-1] == height - 1 or high[-1] == width - 1
        votes = dict(self._tracker.followed[object_id].votes)
        return Detection(
            points_cam=points,
            points_world=world,
            lab=median_lab(view.rgb.reshape(-1, 3)[pixels[:: max(1, len(pixels) // 250)]]),
            shape=lambda: max(votes, key=lambda label: votes[label]),
            centre=np.median(world, axis=0).astype(np.float32),
            truncated=bool(cut),
            motion=flow.motion_of(pixels) if flow else None,
            held_id=self._last_id.get(object_id, 0),
        )

    def _heed_new_names(self, followed_ids: Iterable[int], phrases: Sequence[Phrase]) -> None:
        """What is seen and has no name of the prompt's, which may be new, gets a vote for that
        which it is followed by: views seldom vote for what has been seen often."""
        for object_id in followed_ids:
            track = self.map.tracker.tracks.get(self._last_id.get(object_id, 0))
            if track is not None and self.name(track, phrases) is None:
                track.nouns[self._tracker.followed[object_id].label] += 1

    def _regions(
        self, view: View, masks: dict[int, ObjectMask], phrases: Sequence[Phrase]
    ) -> list[Region]:
        regions = []
        for object_id, mask in masks.items():
            track = self.map.tracker.tracks.get(self._last_id.get(object_id, 0))
            named = self.name(track, phrases) if track else None
            if track is not None and named is not None:
                fitted = _fitted(mask.mask, view.valid.shape)
                regions.append(Region(track.id, fitted, named, track))
        return sorted(regions, key=lambda r: -int(r.mask.sum()))  # the smaller one on top


def _least_scores(phrases: Sequence[Phrase]) -> dict[str, float]:
    """The least score of each phrase, the lower one of a phrase that is named twice."""
    least: dict[str, float] = {}
    for phrase in phrases:
        least[phrase.text] = min(phrase.threshold, least.get(phrase.text, 1.0))
    return least


def _fitted(mask: Bool[np.ndarray, "a b"], shape: tuple[int, ...]) -> Bool[np.ndarray, "h w"]:
    size = (shape[1], shape[0])
    fitted = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    return np.asarray(fitted > 0)


def _inner_pixels(view: View, mask: Bool[np.ndarray, "a b"]) -> Int64[np.ndarray, "n"]:
    fitted = _fitted(mask, view.valid.shape)
    kernel = np.ones((2 * RIM_PX + 1, 2 * RIM_PX + 1), np.uint8)
    core = cv2.erode(fitted.astype(np.uint8), kernel) > 0
    chosen = core if core.sum() >= MIN_PIXELS else fitted
    return np.flatnonzero(chosen & view.valid)


def _one_thing(depth: np.ndarray) -> Bool[np.ndarray, "n"]:
    """Points near the middle depth: what shows through a mask's holes lies far from it."""
    middle = np.median(depth)
    spread = 1.4826 * np.median(np.abs(depth - middle))
    return np.asarray(np.abs(depth - middle) <= DEPTH_SPREAD * spread + 0.03 * middle)
