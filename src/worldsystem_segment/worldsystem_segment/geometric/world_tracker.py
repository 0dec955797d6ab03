# SPDX-License-Identifier: Apache-2.0
"""Identity in the map: detections match tracks by the voxels they share, not by image position.

A track that left the view keeps its voxels, so it gets its id back when it returns. Each voxel's
point is kept in the frame of the keyframe that first saw it; when that keyframe moves, it moves.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32, Float64, Int64
from scipy.optimize import linear_sum_assignment

from worldsystem_core.geometry.pinhole import project
from worldsystem_core.geometry.se3 import inverse, transform
from worldsystem_segment.config import SegmentConfig
from worldsystem_segment.geometric.view import View
from worldsystem_segment.geometric.voxels import dilated, is_in, voxel_keys

MAX_ID = 65535  # label pictures hold 16 bits
MIN_SCORE = 0.15
NEAR = 0.12  # scene unit: how far a thing may move between two keyframes
SEEN_THROUGH = 0.10  # relative depth by which the world lies behind a vanished thing


@dataclass(frozen=True, kw_only=True, eq=False)
class Detection:
    """One instance of one view [scene units]."""

    points_cam: Float32[np.ndarray, "n 3"]
    points_world: Float32[np.ndarray, "n 3"]
    lab: Float32[np.ndarray, "3"]
    noun: str
    centre: Float32[np.ndarray, "3"]  # median point in the world
    truncated: bool  # touches the picture's border
    tags: frozenset[int] = frozenset()


@dataclass(kw_only=True, eq=False)
class WorldTrack:
    """What is remembered of one object; `anchors` holds its points by keyframe."""

    id: int
    lab: Float32[np.ndarray, "3"]
    centre: Float32[np.ndarray, "3"]
    anchors: dict[int, Float32[np.ndarray, "n 3"]] = field(default_factory=dict)
    points_world: Float32[np.ndarray, "n 3"] = field(
        default_factory=lambda: np.zeros((0, 3), np.float32)
    )
    keys: Int64[np.ndarray, "n"] = field(default_factory=lambda: np.zeros(0, np.int64))
    low: Float32[np.ndarray, "3"] = field(default_factory=lambda: np.zeros(3, np.float32))
    high: Float32[np.ndarray, "3"] = field(default_factory=lambda: np.zeros(3, np.float32))
    hits: int = 0
    first_feed: int = 0
    last_feed: int = 0
    last_seen_ns: int = 0
    empty_views: int = 0
    motion: float = 0.0
    nouns: Counter[str] = field(default_factory=Counter)
    tags: set[int] = field(default_factory=set)

    @property
    def moving(self) -> bool:
        return self.motion >= 2.0

    def set_points(self, points_world: Float32[np.ndarray, "n 3"], edge: float) -> None:
        """Replace the points, and the voxels and bounds that follow from them."""
        self.points_world = points_world
        self.keys = np.unique(voxel_keys(points_world, edge))
        if len(points_world):
            self.low, self.high = points_world.min(axis=0), points_world.max(axis=0)


class WorldTracker:
    """Keeps the tracks of the map; every set it holds is bounded and every loss is counted."""

    def __init__(self, config: SegmentConfig) -> None:
        self.config = config
        self.tracks: dict[int, WorldTrack] = {}
        self.feed_count = 0
        self.voxels_dropped = 0
        self.births_refused = 0
        self.tentative_dropped = 0
        self.vanished = 0
        self._poses: dict[int, Float64[np.ndarray, "4 4"]] = {}
        self._sizes: dict[int, float] = {}
        self._next_id = 1
        self._unused_ids: deque[int] = deque(maxlen=MAX_ID)

    def update(self, view: View, detections: list[Detection], stamp_ns: int) -> list[int]:
        """Match, extend and create tracks; returns the track id of each detection (0 = refused)."""
        self.feed_count += 1
        self._poses[view.keyframe_id] = view.world_from_cam
        keys = [voxel_keys(d.points_world, self.config.voxel) for d in detections]
        matched = self._match(detections, keys)
        ids = []
        for index, detection in enumerate(detections):
            track = matched.get(index) or self._born(detection)
            ids.append(track.id if track else 0)
            if track:
                self._extend(track, detection, keys[index], view.keyframe_id)
                track.last_seen_ns = stamp_ns
        self._judge_unseen(view)
        self._drop_tentative()
        return ids

    def confirmed(self, track: WorldTrack) -> bool:
        """Whether the track has been seen often enough to be believed."""
        return track.hits >= self.config.confirm_hits

    def take_id(self) -> int:
        """An id nobody holds, or 0 when all 65535 are taken; a confirmed id is never given again.

        Ids of tracks that were never confirmed come back only when all others are used up.
        """
        if self._next_id <= MAX_ID:
            self._next_id += 1
            return self._next_id - 1
        return self._unused_ids.popleft() if self._unused_ids else 0

    def move(
        self,
        world_from_cam: dict[int, Float64[np.ndarray, "4 4"]],
        sizes: dict[int, float] | None = None,
    ) -> None:
        """Re-anchor every voxel that hangs on a moved keyframe [poses in scene units].

        `sizes` are the factors on the keyframes' points as they were first seen.
        """
        self._sizes.update(sizes or {})
        moved = {k: pose for k, pose in world_from_cam.items() if k in self._poses}
        self._poses.update(moved)
        for track in self.tracks.values():
            if moved.keys() & track.anchors.keys():
                self._rebuild(track)

    def remove(self, keyframe_ids: Iterable[int]) -> None:
        """Forget the voxels that hang on these keyframes, and tracks that have none left."""
        gone = set(keyframe_ids)
        for track in list(self.tracks.values()):
            if not gone & track.anchors.keys():
                continue
            track.anchors = {k: p for k, p in track.anchors.items() if k not in gone}
            if track.anchors:
                self._rebuild(track)
            else:
                del self.tracks[track.id]
        for keyframe_id in gone:
            self._poses.pop(keyframe_id, None)

    def pose(self, keyframe_id: int) -> Float64[np.ndarray, "4 4"] | None:
        """Current pose of a keyframe that something hangs on [scene units]."""
        return self._poses.get(keyframe_id)

    def forget_poses(self, still_needed: set[int]) -> None:
        """Drop the poses that neither a track nor `still_needed` refers to."""
        held = still_needed.union(*(track.anchors.keys() for track in self.tracks.values()))
        self._poses = {k: pose for k, pose in self._poses.items() if k in held}

    def _match(
        self, detections: list[Detection], keys: list[Int64[np.ndarray, "n"]]
    ) -> dict[int, WorldTrack]:
        # Hungarian on shared voxels x colour likeness, with nearness for things that move
        tracks = list(self.tracks.values())
        if not detections or not tracks:
            return {}
        score = np.zeros((len(detections), len(tracks)))
        for row, detection in enumerate(detections):
            low = detection.points_world.min(axis=0) - NEAR
            high = detection.points_world.max(axis=0) + NEAR
            own = np.unique(keys[row])
            around, size = dilated(own), len(own)
            for column, track in enumerate(tracks):
                if (track.low > high).any() or (track.high < low).any():
                    continue
                shared = int(is_in(track.keys, around).sum()) / max(1, min(size, len(track.keys)))
                score[row, column] = self._score(detection, track, min(1.0, shared))
        rows, columns = linear_sum_assignment(-score)
        return {
            int(r): tracks[c] for r, c in zip(rows, columns, strict=True) if score[r, c] > MIN_SCORE
        }

    def _score(self, detection: Detection, track: WorldTrack, shared: float) -> float:
        likeness = float(np.exp(-np.linalg.norm((detection.lab - track.lab)[1:]) / 25.0))
        by_voxels = shared * (0.4 + 0.6 * likeness)
        if self.feed_count - track.last_feed > 3:
            return by_voxels
        step = float(np.linalg.norm(detection.centre - track.centre))
        return max(by_voxels, 0.5 * likeness * max(0.0, 1.0 - step / NEAR))

    def _born(self, detection: Detection) -> WorldTrack | None:
        if len(self.tracks) >= self.config.max_tracks:
            self.births_refused += 1
            return None
        new_id = self.take_id()
        if not new_id:
            self.births_refused += 1
            return None
        track = WorldTrack(
            id=new_id, lab=detection.lab.copy(), centre=detection.centre, first_feed=self.feed_count
        )
        self.tracks[new_id] = track
        return track

    def _extend(
        self,
        track: WorldTrack,
        detection: Detection,
        keys: Int64[np.ndarray, "n"],
        keyframe_id: int,
    ) -> None:
        known = is_in(keys, track.keys)
        stayed = float(is_in(keys, dilated(track.keys)).mean()) if len(track.keys) else 1.0
        if stayed < 0.35 and track.hits > 2 and not detection.truncated:
            track.motion = min(track.motion + 1.0, 4.0)
        else:
            track.motion = max(0.0, track.motion - 0.2)
        if track.moving:  # where it was is no longer where it is
            track.anchors.clear()
            track.set_points(track.points_world[:0], self.config.voxel)
            known = np.zeros(len(keys), bool)
        self._add_points(track, detection, keys, known, keyframe_id)
        track.hits += 1
        track.empty_views = 0
        track.last_feed = self.feed_count
        track.lab = track.lab + np.float32(max(0.1, 1.0 / track.hits)) * (detection.lab - track.lab)
        track.centre = detection.centre
        track.nouns[detection.noun] += 1
        track.tags |= detection.tags

    def _add_points(
        self,
        track: WorldTrack,
        detection: Detection,
        keys: Int64[np.ndarray, "n"],
        known: np.ndarray,
        keyframe_id: int,
    ) -> None:
        # one point per new voxel, in the frame of this keyframe
        fresh = np.flatnonzero(~known)
        _, first = np.unique(keys[fresh], return_index=True)
        fresh = fresh[first]
        room = max(0, self.config.max_voxels - len(track.keys))
        if len(fresh) > room:
            self.voxels_dropped += len(fresh) - room
            fresh = fresh[np.linspace(0, len(fresh) - 1, room).astype(int)]
        if not len(fresh):
            return
        before = track.anchors.get(keyframe_id)
        new = detection.points_cam[fresh] / np.float32(self._sizes.get(keyframe_id, 1.0))
        track.anchors[keyframe_id] = new if before is None else np.concatenate([before, new])
        points = np.concatenate([track.points_world, detection.points_world[fresh]])
        track.set_points(points, self.config.voxel)

    def _rebuild(self, track: WorldTrack) -> None:
        parts = [
            transform(self._poses[k], points * np.float32(self._sizes.get(k, 1.0)))
            for k, points in track.anchors.items()
        ]
        old = track.points_world.mean(axis=0)
        track.set_points(np.concatenate(parts), self.config.voxel)
        track.centre = track.centre + (track.points_world.mean(axis=0) - old)

    def _judge_unseen(self, view: View) -> None:
        # a track whose place is seen to be empty, several times in a row, is gone
        cam_from_world = inverse(view.world_from_cam)
        unseen = [t for t in self.tracks.values() if t.last_feed < self.feed_count]
        if not unseen:
            return
        middles = np.stack([0.5 * (t.low + t.high) for t in unseen])
        _, inside = project(transform(cam_from_world, middles), view.camera)
        for track in (t for t, shown in zip(unseen, inside, strict=True) if shown):
            sample = track.points_world[:: max(1, len(track.points_world) // 150)]
            verdict = _seen_through(view, transform(cam_from_world, sample))
            if verdict is None:
                continue
            track.empty_views = track.empty_views + 1 if verdict else 0
            if track.empty_views >= self.config.vanish_keyframes:
                self.vanished += 1
                del self.tracks[track.id]

    def _drop_tentative(self) -> None:
        oldest = self.feed_count - self.config.tentative_keyframes
        for track in list(self.tracks.values()):
            if not self.confirmed(track) and track.last_feed < oldest:
                del self.tracks[track.id]
                self._unused_ids.append(track.id)
                self.tentative_dropped += 1


def _seen_through(view: View, points_cam: Float32[np.ndarray, "n 3"]) -> bool | None:
    """Whether most points lie in plain view before something farther; None when few are in view."""
    pixels, inside = project(points_cam, view.camera)
    if inside.mean() < 0.5 or inside.sum() < 8:
        return None
    u, v = np.rint(pixels[inside]).astype(int).T
    seen = view.depth[v, u]
    with np.errstate(invalid="ignore"):
        through = seen > points_cam[inside][:, 2] * (1.0 + SEEN_THROUGH)
    return bool(through.mean() > 0.7)
