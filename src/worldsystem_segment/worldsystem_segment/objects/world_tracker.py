# SPDX-License-Identifier: Apache-2.0
"""Identity in the map: detections match tracks by the voxels they share, not by image position.

A track that left the view keeps its voxels, so it gets its id back when it returns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Set
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64

from worldsystem_core.geometry.pinhole import project
from worldsystem_core.geometry.se3 import inverse, transform
from worldsystem_segment.config import SegmentConfig
from worldsystem_segment.objects.association import RECENT_FEEDS, match
from worldsystem_segment.objects.duplicates import duplicates
from worldsystem_segment.objects.track_ids import MAX_ID, TrackIds
from worldsystem_segment.objects.track_kernels import sighted
from worldsystem_segment.objects.track_points import TrackPoints
from worldsystem_segment.objects.view import View
from worldsystem_segment.objects.voxels import voxel_keys
from worldsystem_segment.objects.world_track import Detection, WorldTrack

SEEN = np.array([0.10, 0.05], np.float32)
"""Relative depth by which the world lies behind a vanished thing, and within which it is seen."""
MIN_HIT_SHARE = 0.3  # of the views that show its place, for a thing to be believed
FEEDS_BETWEEN_MERGES = 5
_SAME_POSE = 1e-9
"""A keyframe whose pose changes by less in each number lies where it lay."""
ROOM_FOR_BIRTHS = 20  # places that hidden things leave to new ones


class WorldTracker:
    """Keeps the tracks of the map; every set it holds is bounded and every loss is counted."""

    def __init__(self, config: SegmentConfig) -> None:
        self.config = config
        self.tracks: dict[int, WorldTrack] = {}
        self.feed_count = 0
        self.voxels_dropped = 0
        self.births_refused = 0
        self.tentative_dropped = 0
        self.forgotten = 0
        self.vanished = 0
        self.merged = 0
        self._poses: dict[int, Float64[np.ndarray, "4 4"]] = {}
        self._sizes: dict[int, float] = {}
        self._ids = TrackIds()
        self._joined: deque[tuple[int, int]] = deque(maxlen=MAX_ID)
        self._has_moved = False

    def update(
        self,
        view: View,
        detections: list[Detection],
        stamp_ns: int,
        owner: Int32[np.ndarray, "h w"] | None = None,
    ) -> list[int]:
        """Match, extend and create tracks; returns the track id of each detection (0 = refused).

        `owner`, where it is known, is whose each pixel of the view is: the number of a detection
        from 1 on, -1 for structure, 0 for nobody.
        """
        self.settle()
        self.feed_count += 1
        self._poses[view.keyframe_id] = view.world_from_cam
        thinned = [_one_a_voxel(d, self.config.voxel) for d in detections]
        keys = [voxels for voxels, _ in thinned]
        tracks = list(self.tracks.values())
        matched = match(detections, keys, tracks, feed=self.feed_count, stamp_ns=stamp_ns)
        ids = []
        for index, detection in enumerate(detections):
            track = matched.get(index) or self._born(detection, stamp_ns)
            ids.append(track.id if track else 0)
            if track:
                track.sight(detection, self.feed_count, stamp_ns)
                self._extend(track, detection, thinned[index], view.keyframe_id)
        self._part({i: k for i, k in zip(ids, keys, strict=True) if i})
        self._judge(view, ids, owner)
        self._drop_unbelieved()
        if self.feed_count % FEEDS_BETWEEN_MERGES == 0:
            kept = self._merge()
            ids = [kept.get(number, number) for number in ids]
        for track in self.tracks.values():
            track.was_confirmed |= self.confirmed(track)
        return ids

    def confirmed(self, track: WorldTrack) -> bool:
        """Whether the track has been seen often enough, and missed seldom enough."""
        enough = track.hits >= self.config.confirm_hits
        return enough and track.hits >= MIN_HIT_SHARE * (track.hits + track.misses)

    def hidden(self, track: WorldTrack) -> bool:
        """Whether the track was confirmed once and has been missed too often since: it is told to
        nobody, and has its id when it is seen again."""
        return track.was_confirmed and not self.confirmed(track)

    def present(self, track: WorldTrack) -> bool:
        """Whether the track is where it was last seen, as far as is known."""
        return track.empty_views < self.config.vanish_keyframes

    def settle(self) -> bool:
        """Join things that corrections have laid on each other since; whether there were any."""
        before = self.merged
        if self._has_moved:
            self._merge()
        return self.merged > before

    def skip_ids(self, count: int) -> None:
        """Give none of the next `count` ids: a process before may have given them unseen."""
        self._ids.skip(count, self.feed_count)

    def take_id(self) -> int:
        """An id nobody holds, or 0 when there is none (`TrackIds.take`)."""
        return self._ids.take(self.feed_count)

    def give_back_id(self, number: int) -> None:
        """What had this id of `take_id`, and was told by it, is gone."""
        self._ids.give_back(number, self.feed_count, was_confirmed=True)

    def take_joined(self) -> list[tuple[int, int]]:
        """Ids (kept, gone) of things that turned out to be one since the last call, in order."""
        joined = list(self._joined)
        self._joined.clear()
        return joined

    def take_given_again(self) -> list[int]:
        """Ids of other, confirmed things of before that were given anew since the last call."""
        again, self._ids.given_again = self._ids.given_again, []
        return again

    @property
    def next_id(self) -> int:
        """The id that the next new thing gets."""
        return self._ids.next_id

    @property
    def unused_ids(self) -> list[int]:
        """Ids that were given and may be given again: those that no confirmed thing has had come
        first, and then those of what is gone, oldest first."""
        return self._ids.unused(t.id for t in self.tracks.values() if not t.was_confirmed)

    def size_of(self, keyframe_id: int) -> float:
        """Factor on a keyframe's points as they were first seen."""
        return self._sizes.get(keyframe_id, 1.0)

    def restore(
        self,
        tracks: Iterable[WorldTrack],
        poses: dict[int, Float64[np.ndarray, "4 4"]],
        sizes: dict[int, float],
        next_id: int,
        unused_ids: Iterable[int] = (),
    ) -> None:
        """Go on with the things of a saved map instead of those found until now."""
        self.tracks = {track.id: track for track in tracks}
        stamps = sorted({track.last_seen_ns for track in self.tracks.values()}, reverse=True)
        ago = {stamp_ns: feeds for feeds, stamp_ns in enumerate(stamps, RECENT_FEEDS + 1)}
        for track in self.tracks.values():  # those that one view showed last are of one feed
            track.first_feed = track.last_feed = self.feed_count - ago[track.last_seen_ns]
        self._poses, self._sizes = dict(poses), dict(sizes)
        self._ids.restore(next_id, unused_ids, self.tracks)

    def move(
        self,
        world_from_cam: dict[int, Float64[np.ndarray, "4 4"]],
        sizes: dict[int, float] | None = None,
    ) -> None:
        """Re-anchor every voxel that hangs on a moved keyframe [poses in scene units].

        `sizes` are the factors on the keyframes' points as they were first seen. Keyframes that lie
        where they lay cost nothing: all are told when a map is gone on in.
        """
        known = {k: pose for k, pose in world_from_cam.items() if k in self._poses}
        apart = {k: np.abs(pose - self._poses[k]).max() for k, pose in known.items()}
        changed = {k for k, by in apart.items() if by > _SAME_POSE}
        grown = {k for k, size in (sizes or {}).items() if size != self._sizes.get(k, 1.0)}
        moved = changed | (grown & self._poses.keys())
        self._sizes.update(sizes or {})
        self._poses.update({k: known[k] for k in changed})
        for track in self.tracks.values():
            if moved & track.points.anchors:
                self._replace(track, moved)
                self._has_moved = True

    def remove(self, keyframe_ids: Iterable[int]) -> None:
        """Forget the voxels that hang on these keyframes, and tracks that have none left."""
        gone = set(keyframe_ids)
        for track in list(self.tracks.values()):
            if gone & track.points.anchors:
                track.points.withdraw(gone)
                if not len(track.points):
                    self._let_go(track)
        for keyframe_id in gone:
            self._poses.pop(keyframe_id, None)
            self._sizes.pop(keyframe_id, None)

    def hang_on(
        self, keyframe_id: int, other: int, pose: Float64[np.ndarray, "4 4"], size: float
    ) -> None:
        """Let what hangs on a keyframe hang on `other`, which lies at `pose` [scene units] and has
        grown by `size` where it is not known yet."""
        at = self._poses.setdefault(other, pose)
        grown = self._sizes.setdefault(other, size)
        self._has_moved = True
        for track in self.tracks.values():
            if keyframe_id in track.points.anchors:
                track.points.hang_on(keyframe_id, other, at, grown)

    @property
    def knows_any(self) -> bool:
        """Whether something hangs on any keyframe."""
        return bool(self._poses)

    def knows(self, keyframe_id: int) -> bool:
        """Whether something hangs on this keyframe."""
        return keyframe_id in self._poses

    def pose(self, keyframe_id: int) -> Float64[np.ndarray, "4 4"] | None:
        """Current pose of a keyframe that something hangs on [scene units]."""
        return self._poses.get(keyframe_id)

    def forget_poses(self, still_needed: set[int]) -> None:
        """Drop the poses that neither a track nor `still_needed` refers to."""
        held = still_needed.union(*(track.points.anchors for track in self.tracks.values()))
        self._poses = {k: pose for k, pose in self._poses.items() if k in held}
        self._sizes = {k: size for k, size in self._sizes.items() if k in held}

    def _born(self, detection: Detection, stamp_ns: int) -> WorldTrack | None:
        new_id = self.take_id() if len(self.tracks) < self.config.max_tracks else 0
        if not new_id:
            self.births_refused += 1
            return None
        track = WorldTrack(
            id=new_id,
            lab=detection.lab.copy(),
            centre=detection.centre,
            points=TrackPoints(self.config.voxel, self.config.max_voxels),
            first_feed=self.feed_count,
            first_seen_ns=stamp_ns,
        )
        self.tracks[new_id] = track
        return track

    def _extend(
        self,
        track: WorldTrack,
        detection: Detection,
        thinned: tuple[Int64[np.ndarray, "n"], Int64[np.ndarray, "n"]],
        keyframe_id: int,
    ) -> None:
        if track.moving:  # where it was is no longer where it is
            track.points.clear()
        keys, first = thinned
        unscaled = detection.points_cam[first] / np.float32(self._sizes.get(keyframe_id, 1.0))
        world = detection.points_world[first]
        self.voxels_dropped += track.points.add(keyframe_id, unscaled, world, keys)

    def _part(self, seen: dict[int, Int64[np.ndarray, "n"]]) -> None:
        # what one view shows as two things is two: neither keeps voxels that the other one fills
        for track_id, keys in seen.items():
            points = self.tracks[track_id].points
            for other_id in seen.keys() - {track_id}:
                other = self.tracks[other_id].points
                apart = (other.low > points.high).any() or (other.high < points.low).any()
                if not apart:
                    other.give_up(np.setdiff1d(keys, seen[other_id], assume_unique=True))

    def _replace(self, track: WorldTrack, moved: Set[int]) -> None:
        old = track.points.world.mean(axis=0)
        track.points.place(moved, self._poses, self._sizes)
        track.centre = track.centre + (track.points.world.mean(axis=0) - old)

    def _judge(self, view: View, ids: list[int], owner: Int32[np.ndarray, "h w"] | None) -> None:
        # points seen through, or seen to be another's, lose votes; a thing whose place is empty
        # several times over is gone
        number = {track_id: index for index, track_id in enumerate(ids, start=1)}
        cam_from_world = inverse(view.world_from_cam)
        near = [t for t in self.tracks.values() if len(t.points)]
        if not near:
            return
        middles = np.stack([0.5 * (t.points.low + t.points.high) for t in near])
        _, inside = project(transform(cam_from_world, middles), view.camera)
        for track in (t for t, shown in zip(near, inside, strict=True) if shown):
            sight = _Sight.of(view, track.points.world, owner, number.get(track.id, 0))
            seen_now = track.last_feed == self.feed_count
            if not seen_now:
                self._judge_unseen(track, sight)
            if (seen_now or track.empty_views == 0) and not track.moving:
                track.points.doubt(sight.through | sight.foreign)
            if not len(track.points):
                self._vanish(track)

    def _judge_unseen(self, track: WorldTrack, sight: _Sight) -> None:
        if sight.shown < 0.5:
            return
        if sight.through.sum() > 0.7 * sight.shown * len(sight.through):
            track.empty_views += 1
        else:
            track.empty_views = 0
            track.misses += bool(sight.at > 0.6) and not self.hidden(track)
        if track.empty_views >= self.config.vanish_keyframes and not track.moving:
            self._vanish(track)

    def _vanish(self, track: WorldTrack) -> None:
        if track.id in self.tracks:
            self._let_go(track)
            self.vanished += 1

    def _drop_unbelieved(self) -> None:
        """Tentative things go when unseen for a while; hidden ones, and movers that drove off, when
        new ones need the room."""
        oldest = self.feed_count - self.config.tentative_keyframes
        unseen = [
            track
            for track in self.tracks.values()
            if track.last_feed < oldest and not (self.confirmed(track) and self.present(track))
        ]
        for track in unseen:
            if not track.was_confirmed:
                self._let_go(track)
                self.tentative_dropped += 1
        hidden = sorted((t for t in unseen if t.was_confirmed), key=lambda t: t.last_feed)
        excess = max(0, len(self.tracks) + ROOM_FOR_BIRTHS - self.config.max_tracks)
        for track in hidden[:excess]:
            self._let_go(track)
            self.forgotten += 1

    def _let_go(self, track: WorldTrack) -> None:
        del self.tracks[track.id]
        self._ids.give_back(track.id, self.feed_count, was_confirmed=track.was_confirmed)

    def _merge(self) -> dict[int, int]:
        """Join things that are one; ids that are gone → those that are kept."""
        self._has_moved = False
        pairs = duplicates(list(self.tracks.values()))
        for kept, gone in pairs:
            kept.take_over(gone)
            self._let_go(gone)
            self.merged += 1
            self._joined.append((kept.id, gone.id))
        return {gone.id: kept.id for kept, gone in pairs}


def _one_a_voxel(
    detection: Detection, edge: float
) -> tuple[Int64[np.ndarray, "n"], Int64[np.ndarray, "n"]]:
    """The voxels of a detection, sorted and unique, and which of its points is each one's first."""
    return np.unique(voxel_keys(detection.points_world, edge), return_index=True)


@dataclass(frozen=True, eq=False)
class _Sight:
    """What a view shows of a thing's points: which it sees through, which are another's now.

    `shown` and `at` are the shares of points in the picture, and of those on the surface seen.
    """

    through: Bool[np.ndarray, "n"]
    foreign: Bool[np.ndarray, "n"]
    shown: float
    at: float

    @staticmethod
    def of(
        view: View,
        points_world: Float32[np.ndarray, "n 3"],
        owner: Int32[np.ndarray, "h w"] | None,
        own: int,
    ) -> _Sight:
        whose = np.zeros((0, 0), np.int32) if owner is None else owner
        through, foreign, inside, at = sighted(
            points_world, view.cam_from_world, view.lens, view.depth, SEEN, whose, own
        )
        return _Sight(through, foreign, inside / max(len(through), 1), at / max(inside, 1))
