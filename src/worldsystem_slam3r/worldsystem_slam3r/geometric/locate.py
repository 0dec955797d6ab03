# SPDX-License-Identifier: Apache-2.0
"""Where a picture was taken: predict, follow, fit the pose; find the way back when lost."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from worldsystem_core.geometry.se3 import inverse, pose_from
from worldsystem_core.priority import behind
from worldsystem_slam3r.geometric.intake import Picture
from worldsystem_slam3r.geometric.map_store import Map
from worldsystem_slam3r.geometric.pose import MIN_INLIERS, PoseFit, find_pose, refine_pose
from worldsystem_slam3r.geometric.relocalise import relocalise
from worldsystem_slam3r.geometric.tracking import FeatureTracker

KEYFRAME_FLOW_WIDTHS, KEYFRAME_FLOW_BEHIND = 0.045, 0.09
"""Median flow since the last keyframe, over the picture's width, that makes a new one; the latter
while pictures wait that would be let go: each keyframe is work for every stage."""
KEYFRAME_KEPT, KEYFRAME_KEPT_LEAST = 0.65, 0.55
"""Share of the last keyframe's tracks below which a new one is made; the latter while pictures
wait, and within `KEYFRAME_GAP` pictures of the last one."""
KEYFRAME_GAP = 3
RELOCALISE_EVERY, RELOCALISE_BEHIND = 2, 8
"""Of the pictures of a camera that is lost, so many pass for each one that is compared, which costs
three or four pictures' time; the latter while others wait that would be let go."""


@dataclass(frozen=True)
class Located:
    """The pose was found; confidence is the share of followed points that agree."""

    confidence: float
    inliers: int


class Locator:
    """Keeps the camera's pose from picture to picture."""

    def __init__(
        self, world: Map, tracker: FeatureTracker, cam_from_world: Float64[np.ndarray, "4 4"]
    ) -> None:
        self._world = world
        self._tracker = tracker
        self._poses = deque([cam_from_world.copy()], maxlen=2)
        self._lost_for, self._compared_at = 0, -RELOCALISE_BEHIND
        self._since_keyframe = 0
        self._tracks_at_keyframe = 0

    @property
    def cam_from_world(self) -> Float64[np.ndarray, "4 4"]:
        """The newest pose."""
        return self._poses[-1]

    def correct(self, cam_from_world: Float64[np.ndarray, "4 4"]) -> None:
        """The newest picture became a keyframe and was refined to this pose."""
        change = inverse(self._poses[-1]) @ cam_from_world
        self._poses = deque([pose @ change for pose in self._poses], maxlen=2)
        self._poses[-1] = cam_from_world.copy()
        self._since_keyframe = 0
        self._tracks_at_keyframe = 0

    def locate(self, picture: Picture) -> Located | None:
        """Find the picture's pose; None when it cannot be told."""
        self._since_keyframe += 1
        if self._lost_for:
            return self._recover(picture)
        self._tracks_at_keyframe = max(self._tracks_at_keyframe, len(self._tracker.current))
        fit = self._follow(picture)
        if fit is None:
            return self._recover(picture)
        self._poses.append(fit.cam_from_world)
        return Located(fit.inlier_count / max(len(fit.inliers), 1), fit.inlier_count)

    @property
    def wants_keyframe(self) -> bool:
        """Whether the newest picture has moved on far enough to be a keyframe."""
        kept = len(self._tracker.current) / max(self._tracks_at_keyframe, 1)
        if self._since_keyframe < KEYFRAME_GAP and kept > KEYFRAME_KEPT_LEAST:
            return False
        late = behind()
        if kept < (KEYFRAME_KEPT_LEAST if late else KEYFRAME_KEPT):
            return True
        moved = np.linalg.norm(self._tracker.current.px - self._tracker.anchor.px, axis=1)
        width = 2.0 * self._world.K4[2] + 1.0
        enough = KEYFRAME_FLOW_BEHIND if late else KEYFRAME_FLOW_WIDTHS
        return bool(np.median(moved) > enough * width)

    def _follow(self, picture: Picture) -> PoseFit | None:
        """Track from the prediction and fit the pose; tracks that disagree are let go."""
        predicted = self._predicted_pose()
        before = len(self._tracker.current)
        self._tracker.advance(picture.grey, [self._predicted_px(predicted)])
        if len(self._tracker.current) < max(MIN_INLIERS, 0.1 * before):
            return None
        positions = self._world.positions(self._tracker.current.ids)
        known = np.isfinite(positions[:, 0])
        uv = self._tracker.current.px[known].astype(np.float64)
        fit = self._fit(predicted, positions[known], uv)
        if fit is None:
            return None
        keep = np.ones(len(known), bool)
        keep[known] = fit.inliers
        self._tracker.keep(keep)
        return fit

    def _fit(self, predicted: np.ndarray, points: np.ndarray, uv: np.ndarray) -> PoseFit | None:
        if len(points) < MIN_INLIERS:
            return None
        fit = refine_pose(predicted, points, uv, self._world.K4)
        if fit.inlier_count >= max(MIN_INLIERS, 0.6 * len(points)):
            return fit
        found = find_pose(points, uv, self._world.K4)
        if found is not None and found.inlier_count > fit.inlier_count:
            fit = found
        return fit if fit.inlier_count >= max(MIN_INLIERS, 0.3 * len(points)) else None

    def _predicted_pose(self) -> np.ndarray:
        """Constant velocity: the last motion once more."""
        if len(self._poses) < 2:
            return self._poses[-1]
        predicted = self._poses[-1] @ inverse(self._poses[-2]) @ self._poses[-1]
        u, _, vt = np.linalg.svd(predicted[:3, :3])
        return pose_from(u @ vt, predicted[:3, 3])

    def _predicted_px(self, cam_from_world: np.ndarray) -> np.ndarray:
        """Where the tracks should be now; those without a position move like the others."""
        current = self._tracker.current
        positions = self._world.positions(current.ids)
        cam = positions @ cam_from_world[:3, :3].T + cam_from_world[:3, 3]
        z = np.where(cam[:, 2] > 1e-6, cam[:, 2], np.nan)
        px = cam[:, :2] / z[:, None] * self._world.K4[:2] + self._world.K4[2:]
        known = np.isfinite(px[:, 0])
        shift = np.zeros(2)
        if known.any():
            shift = np.median(px[known] - current.px[known], axis=0)
        return np.where(known[:, None], px, current.px + shift).astype(np.float32)

    def _recover(self, picture: Picture) -> Located | None:
        """Compare with recent keyframes; on success their points are followed again."""
        self._lost_for += 1
        every = RELOCALISE_BEHIND if behind() else RELOCALISE_EVERY
        if self._lost_for - self._compared_at < every:
            return None
        self._compared_at = self._lost_for
        found = relocalise(self._world, picture.grey)
        if found is None:
            return None
        self._lost_for, self._compared_at = 0, -RELOCALISE_BEHIND
        self._poses = deque([found.cam_from_world], maxlen=2)
        self._tracker.adopt(picture.grey, found.tracks)
        self._since_keyframe = KEYFRAME_GAP
        self._tracks_at_keyframe = 10**6
        return Located(0.5, len(found.tracks))
