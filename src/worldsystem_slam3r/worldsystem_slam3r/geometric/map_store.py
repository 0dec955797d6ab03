# SPDX-License-Identifier: Apache-2.0
"""The map: keyframes, sparse points and who saw what; bounded by the keyframes still in use."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64, UInt8

from worldsystem_core.frames import Camera
from worldsystem_core.geometry.se3 import inverse, transform
from worldsystem_slam3r.geometric.bundle import Bundle
from worldsystem_slam3r.geometric.dense import DepthMap, View
from worldsystem_slam3r.geometric.initialise import rays, triangulate
from worldsystem_slam3r.geometric.matching import Features

MIN_ANGLE_RAD = np.deg2rad(1.2)
MAX_ERROR_PX = 3.0
MAX_ROWS = 50_000


@dataclass(kw_only=True, eq=False)
class KeyframeRecord:
    """One keyframe as the back-end keeps it; `told` is the pose last given to the outside."""

    id: int
    frame_id: int
    stamp_ns: int
    cam_from_world: Float64[np.ndarray, "4 4"]
    ids: Int64[np.ndarray, "n"]
    px: Float64[np.ndarray, "n 2"]
    grey: UInt8[np.ndarray, "hh ww"]
    rgb: UInt8[np.ndarray, "h w 3"]
    view: View | None = None
    depth: DepthMap | None = None
    told: Float64[np.ndarray, "4 4"] | None = None
    features: Features | None = None

    @property
    def world_from_cam(self) -> Float64[np.ndarray, "4 4"]:
        """The pose now."""
        return inverse(self.cam_from_world)

    def described(self) -> Features:
        """Its descriptors, computed on first use: of several at once, when the camera is lost."""
        if self.features is None:
            self.features = Features.of_half(self.grey)
        return self.features

    def kept_view(self) -> View:
        """The view prepared for dense depth; asking for one that was let go is a fault here."""
        assert self.view is not None
        return self.view


@dataclass(eq=False)
class PointTable:
    """Positions [world units] of tracks by id, NaN = not triangulated; and where each was born."""

    position: Float64[np.ndarray, "n 3"] = field(default_factory=lambda: np.full((1024, 3), np.nan))
    first_keyframe: Int64[np.ndarray, "n"] = field(
        default_factory=lambda: np.full(1024, -1, np.int64)
    )
    first_px: Float64[np.ndarray, "n 2"] = field(default_factory=lambda: np.full((1024, 2), np.nan))
    base: int = 0

    def rows(self, ids: Int64[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
        """Rows of track ids; the table grows as needed."""
        need = int(ids.max(initial=self.base)) - self.base + 1
        if need > len(self.position):
            extra = max(need - len(self.position), len(self.position))
            self.position = np.vstack([self.position, np.full((extra, 3), np.nan)])
            self.first_px = np.vstack([self.first_px, np.full((extra, 2), np.nan)])
            self.first_keyframe = np.append(self.first_keyframe, np.full(extra, -1, np.int64))
        return ids - self.base

    def forget_below(self, oldest_id: int) -> None:
        """Drop rows of ids that nobody uses any more."""
        drop = oldest_id - self.base
        if drop < 4096:
            return
        self.position = self.position[drop:].copy()
        self.first_px = self.first_px[drop:].copy()
        self.first_keyframe = self.first_keyframe[drop:].copy()
        self.base = oldest_id


class Map:
    """Keyframes in the order they came, and the points between them.

    No track of it may have an id below `first_track`: the table has no room for those.
    """

    def __init__(
        self, K4: Float64[np.ndarray, "4"], first_id: int = 0, first_track: int = 0
    ) -> None:
        self.K4 = K4
        self.points = PointTable(base=first_track)
        self.keyframes: dict[int, KeyframeRecord] = {}
        self._next_id = first_id

    @property
    def next_id(self) -> int:
        """The id that the next keyframe gets."""
        return self._next_id

    def pinhole(self, like: Camera) -> Camera:
        """The camera of its pixels, for pictures of the size of `like`."""
        fx, fy, cx, cy = self.K4.tolist()
        return replace(like, fx=fx, fy=fy, cx=cx, cy=cy)

    def new_keyframe_id(self) -> int:
        """An id never used before."""
        self._next_id += 1
        return self._next_id - 1

    def renumber(self) -> list[int]:
        """New ids for all keyframes if any was told outside; returns the ids that were."""
        gone = [record.id for record in self.keyframes.values() if record.told is not None]
        if not gone:
            return gone
        first = self.points.first_keyframe
        table = np.full(self._next_id + 1, -1, np.int64)
        for record in self.keyframes.values():
            table[record.id] = record.id = self.new_keyframe_id()
        known = np.clip(first, 0, len(table) - 1)
        self.points.first_keyframe = np.where(first >= 0, table[known], -1)
        self.keyframes = {record.id: record for record in self.keyframes.values()}
        for record in self.keyframes.values():
            record.told = record.depth = None
        return gone

    def latest(self, count: int) -> list[KeyframeRecord]:
        """Up to `count` newest keyframes, oldest first."""
        return list(self.keyframes.values())[-count:]

    def add(self, record: KeyframeRecord) -> None:
        """Take a keyframe and note which tracks it is the first to see."""
        self.keyframes[record.id] = record
        rows = self.points.rows(record.ids)
        fresh = self.points.first_keyframe[rows] < 0
        self.points.first_keyframe[rows[fresh]] = record.id
        self.points.first_px[rows[fresh]] = record.px[fresh]

    def positions(self, ids: Int64[np.ndarray, "n"]) -> Float64[np.ndarray, "n 3"]:
        """World positions of tracks, NaN where unknown."""
        return np.asarray(self.points.position[self.points.rows(ids)])

    def seen_points(self, record: KeyframeRecord) -> Float64[np.ndarray, "m 3"]:
        """World positions of the triangulated points that a keyframe sees."""
        positions = self.positions(record.ids)
        return np.asarray(positions[np.isfinite(positions[:, 0])])

    def triangulate_new(self, record: KeyframeRecord) -> int:
        """Give positions to tracks that their first keyframe and this one see well enough apart."""
        rows = self.points.rows(record.ids)
        first = self.points.first_keyframe[rows]
        known = np.isin(first, list(self.keyframes))
        wanted = np.isnan(self.points.position[rows, 0]) & known & (first != record.id)
        if not wanted.any():
            return 0
        rows, uv_b = rows[wanted], record.px[wanted]
        uv_a = self.points.first_px[rows]
        pose_a = np.stack([self.keyframes[k].cam_from_world for k in first[wanted].tolist()])
        pose_b = np.broadcast_to(record.cam_from_world, pose_a.shape)
        points, angle = triangulate(pose_a, pose_b, rays(uv_a, self.K4), rays(uv_b, self.K4))
        good = np.isfinite(points[:, 0]) & (angle > MIN_ANGLE_RAD)
        for pose, uv in ((pose_a, uv_a), (pose_b, uv_b)):
            good &= _errors_px(pose, points, uv, self.K4) < MAX_ERROR_PX
        self.points.position[rows[good]] = points[good]
        return int(good.sum())

    def bundle(
        self, records: list[KeyframeRecord], fixed: int
    ) -> tuple[Bundle, Int64[np.ndarray, "n"]]:
        """The optimisation problem of `records`, the first `fixed` of them held, and the rows of
        its n points in `points`.

        Points seen only once among the records take no part.
        """
        rows = np.concatenate([self.points.rows(record.ids) for record in records])
        cam = np.concatenate([np.full(len(r.ids), i) for i, r in enumerate(records)])
        uv = np.concatenate([record.px for record in records])
        use = np.isfinite(self.points.position[rows, 0])
        count = np.bincount(rows[use], minlength=len(self.points.position))
        use &= count[rows] >= 2
        rows, cam, uv = rows[use], cam[use], uv[use]
        order = np.lexsort((cam, rows))
        chosen, index = np.unique(rows[order], return_inverse=True)
        bundle = Bundle(
            rotations=np.stack([r.cam_from_world[:3, :3] for r in records]),
            translations=np.stack([r.cam_from_world[:3, 3] for r in records]),
            points=self.points.position[chosen],
            cam_index=cam[order].astype(np.int64),
            point_index=index.astype(np.int64),
            uv=uv[order],
            K4=self.K4,
            fixed=np.arange(len(records)) < fixed,
        )
        return bundle, chosen

    def forget_outliers(
        self,
        records: list[KeyframeRecord],
        bad: Bool[np.ndarray, "n"],
        seen: Bundle,
        rows: Int64[np.ndarray, "p"],
    ) -> None:
        """Remove the observations of `seen` that `bad` marks, and points left with fewer than two.

        `records`, `seen` and `rows` are what `bundle` was given and gave.
        """
        bad_pairs = set(
            zip(seen.cam_index[bad].tolist(), rows[seen.point_index[bad]].tolist(), strict=True)
        )
        if not bad_pairs:
            return
        good = np.bincount(seen.point_index[~bad], minlength=len(rows))
        self.points.position[rows[good < 2]] = np.nan
        for i, record in enumerate(records):
            mine = [row for cam, row in bad_pairs if cam == i]
            if mine:
                keep = ~np.isin(self.points.rows(record.ids), mine)
                record.ids, record.px = record.ids[keep], record.px[keep]

    def release(self, keep: int) -> None:
        """Let go of keyframes older than the newest `keep`, and of their points.

        Points followed for so long that `MAX_ROWS` newer ones came go too, so that the table is
        bounded; whoever follows them must let go of ids below `points.base`.
        """
        for key in list(self.keyframes)[:-keep]:
            del self.keyframes[key]
        newest = max((int(r.ids.max()) for r in self.keyframes.values() if len(r.ids)), default=0)
        for record in self.keyframes.values():
            kept = record.ids > newest - MAX_ROWS
            record.ids, record.px = record.ids[kept], record.px[kept]
        alive = [int(r.ids.min()) for r in self.keyframes.values() if len(r.ids)]
        if alive:
            self.points.forget_below(min(alive))


def _errors_px(
    cam_from_world: Float64[np.ndarray, "n 4 4"],
    points: Float64[np.ndarray, "n 3"],
    uv: Float[np.ndarray, "n 2"],
    K4: Float64[np.ndarray, "4"],
) -> Float64[np.ndarray, "n"]:
    """Reprojection error [px] of world points, each by its own camera; infinite behind it."""
    x = np.einsum("nij,nj->ni", cam_from_world[:, :3, :3], points) + cam_from_world[:, :3, 3]
    with np.errstate(invalid="ignore", divide="ignore"):
        px = x[:, :2] / x[:, 2:] * K4[:2] + K4[2:]
    error: np.ndarray = np.linalg.norm(px - uv, axis=1)
    return np.where(x[:, 2] > 0, error, np.inf)


def median_depth(record: KeyframeRecord, points: Float64[np.ndarray, "n 3"]) -> float:
    """Median depth [world units] of world points before a keyframe; 1.0 where there are none."""
    z = transform(record.cam_from_world, points)[:, 2] if len(points) else np.zeros(0)
    z = z[z > 0]
    return float(np.median(z)) if len(z) else 1.0
