# SPDX-License-Identifier: Apache-2.0
"""A keyframe's tracks and label picture, at the keyframe's own size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt16

from worldsystem_core.objects import Track, TrackFrame, TrackState
from worldsystem_core.reconstruction import Keyframe
from worldsystem_segment.objects.object_map import Named, Naming
from worldsystem_segment.objects.view import View
from worldsystem_segment.objects.view_kernels import draw
from worldsystem_segment.objects.world_track import WorldTrack
from worldsystem_segment.objects.world_tracker import WorldTracker


@dataclass(frozen=True, eq=False)
class Region:
    """Pixels that one id is drawn on, at a whole fraction of the picture's size.

    `track` is None for structure, which has no place among the objects.
    """

    id: int
    mask: Bool[np.ndarray, "h w"]
    named: Named
    track: WorldTrack | None


def report(
    keyframe: Keyframe,
    usable_px: Bool[np.ndarray, "h w"],
    regions: Sequence[Region],
    tracker: WorldTracker,
) -> TrackFrame:
    """Draw the regions, the last one on top; pixels that are not usable are nobody's."""
    if not regions:
        return empty_report(keyframe)
    small = np.zeros(regions[0].mask.shape, np.uint16)
    for index, region in enumerate(regions, start=1):
        small[region.mask] = index
    stride = -(-usable_px.shape[1] // regions[0].mask.shape[-1])
    ids = np.array([0, *(region.id for region in regions)], np.uint16)
    labels, places = draw(small, stride, usable_px, ids)
    tracks = tuple(
        _track(region, place, tracker)
        for region, place in zip(regions, places[1:].tolist(), strict=True)
        if place[4]
    )
    return empty_report(keyframe, labels, tracks)


def empty_report(
    keyframe: Keyframe,
    labels: UInt16[np.ndarray, "h w"] | None = None,
    tracks: tuple[Track, ...] = (),
) -> TrackFrame:
    """The tracks of a keyframe; without any where nothing more is given."""
    if labels is None:
        labels = np.zeros(keyframe.pointmap.shape[:2], np.uint16)
    return TrackFrame(
        frame_id=keyframe.frame_id,
        keyframe_id=keyframe.id,
        stamp_ns=keyframe.stamp_ns,
        tracks=tracks,
        labels=labels,
    )


def unseen_tracks(
    view: View,
    tracker: WorldTracker,
    naming: Naming,
) -> tuple[Track, ...]:
    """Tracks with a name that this view should show but does not: hidden, or just gone from it."""
    found = []
    for track in tracker.tracks.values():
        if track.last_feed == tracker.feed_count or not len(track.points):
            continue
        if not (tracker.confirmed(track) and tracker.present(track)):
            continue
        box = view.box_of(track.points.solid)
        just_left = track.last_feed == tracker.feed_count - 1
        named = naming(track) if box is not None or just_left else None
        if named is not None:
            state = TrackState.LOST if box is None else TrackState.OCCLUDED
            found.append(_unseen(track, named, box or (0, 0, 0, 0), state, tracker))
    return tuple(found)


def _track(region: Region, place: list[int], tracker: WorldTracker) -> Track:
    track = region.track
    sure = track is None or tracker.confirmed(track)
    return Track(
        id=region.id,
        label=region.named.label,
        score=track.certainty if track else 0.75,
        box_px=(place[0], place[1], place[2], place[3]),
        area_px=place[4],
        age_frames=tracker.feed_count - track.first_feed if track else 0,
        state=TrackState.CONFIRMED if sure else TrackState.TENTATIVE,
        candidates=region.named.candidates,
    )


def _unseen(
    track: WorldTrack,
    named: Named,
    box: tuple[int, int, int, int],
    state: TrackState,
    tracker: WorldTracker,
) -> Track:
    return Track(
        id=track.id,
        label=named.label,
        score=track.certainty,
        box_px=box,
        area_px=0,
        age_frames=tracker.feed_count - track.first_feed,
        state=state,
        candidates=named.candidates,
    )
