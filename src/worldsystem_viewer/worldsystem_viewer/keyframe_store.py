# SPDX-License-Identifier: Apache-2.0
"""Every keyframe's pose, and a sample of its points that hangs on it."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import takewhile

import numpy as np
from jaxtyping import Float32

from worldsystem_core.frames import Camera
from worldsystem_core.pages import in_own_pages
from worldsystem_core.reconstruction import Keyframe, MovedKeyframes
from worldsystem_viewer.protocol import KeyframesUpdate, PointsUpdate

_MOST_KEYFRAMES = 5_000
_MOST_GONE = 500
_SAMPLE_POINTS = 6_000
_SAME_SIZE = 1e-3
_STEPS = 65_535


@dataclass
class KeyframeCursor:
    """What one page has: all keyframes up to `change`, which are those that it was `told`, and of
    `clouds` the points of that version."""

    change: int = 0
    told: frozenset[int] = frozenset()
    clouds: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Cloud:
    """Points of a frame; a keyframe that is told again may have others, as a new version."""

    version: int
    frame_id: int
    points: PointsUpdate


class KeyframeStore:
    """Newest poses, oldest keyframes first; one thread at a time.

    Holds `most_points` points at most: beyond it the oldest keyframes lose theirs, to 90 %.
    """

    def __init__(self, most_points: int) -> None:
        self._most_points = most_points
        self._poses: OrderedDict[int, tuple[int, np.ndarray, float]] = OrderedDict()
        self._gone: OrderedDict[int, int] = OrderedDict()
        self._forgotten_change = 0
        self._clouds: OrderedDict[int, _Cloud] = OrderedDict()
        self._points = 0
        self._change = 0
        self._camera: Camera | None = None
        self._worlds = 0

    def __len__(self) -> int:
        return len(self._poses)

    def add(self, keyframe: Keyframe, cloud: PointsUpdate) -> None:
        """A new keyframe, or one told again, with its points in its camera frame."""
        self._camera = keyframe.camera
        if not self._has_points_of(keyframe):
            self._forget_cloud(keyframe.id)
            self._clouds[keyframe.id] = _Cloud(self._change + 1, keyframe.frame_id, cloud)
            self._points += len(cloud.points)
        self._put(keyframe.id, keyframe.world_from_cam, 1.0)
        if self._points > self._most_points:
            while self._clouds and self._points > 0.9 * self._most_points:
                self._forget_cloud(next(iter(self._clouds)))
        if len(self._poses) > _MOST_KEYFRAMES:
            self.remove((next(iter(self._poses)),))

    def move(self, moved: MovedKeyframes) -> None:
        """Corrected poses and sizes; those of unknown keyframes are left out."""
        for keyframe_id, pose in moved.world_from_cam.items():
            if keyframe_id in self._poses:
                size = moved.point_scale.get(keyframe_id, self._poses[keyframe_id][2])
                self._put(keyframe_id, pose, size)

    def remove(self, ids: tuple[int, ...]) -> None:
        """Keyframes that are withdrawn; after the last of them, what comes is another world."""
        held_any = bool(self._poses)
        for keyframe_id in ids:
            if self._poses.pop(keyframe_id, None) is not None:
                self._change += 1
                self._gone[keyframe_id] = self._change
                self._forget_cloud(keyframe_id)
        if held_any and not self._poses:
            self._worlds += 1
        while len(self._gone) > _MOST_GONE:
            _, self._forgotten_change = self._gone.popitem(last=False)

    def newer(self, cursor: KeyframeCursor) -> KeyframesUpdate | None:
        """What changed since the page was last told."""
        if cursor.change == self._change:
            return None
        since, cursor.change = cursor.change, self._change
        new = [(i, at) for i, at in self._poses.items() if at[0] > since]
        gone = self._gone_since(since, cursor.told)
        cursor.told = frozenset(self._poses)
        for keyframe_id in gone:
            cursor.clouds.pop(keyframe_id, None)
        camera = self._camera
        return KeyframesUpdate(
            width=camera.width if camera else 0,
            height=camera.height if camera else 0,
            fx=float(camera.fx) if camera else 0.0,
            fy=float(camera.fy) if camera else 0.0,
            worlds=self._worlds,
            removed=np.array(gone, np.int32),
            id=np.array([i for i, _ in new], np.int32),
            world_from_cam=np.array([at[1] for _, at in new], np.float32).reshape(-1, 4, 4),
            point_scale=np.array([at[2] for _, at in new], np.float32),
        )

    def next_cloud(
        self, cursor: KeyframeCursor, viewpoint: Float32[np.ndarray, "3"] | None
    ) -> PointsUpdate | None:
        """The points nearest to `viewpoint` that the page has not got."""
        has = cursor.clouds
        lacking = [i for i, cloud in self._clouds.items() if has.get(i) != cloud.version]
        if not lacking:
            return None
        nearest = lacking[-1]
        if viewpoint is not None and len(lacking) > 1:
            centres = np.array([self._poses[i][1][:3, 3] for i in lacking])
            nearest = lacking[int(np.argmin(np.linalg.norm(centres - viewpoint, axis=1)))]
        has[nearest] = self._clouds[nearest].version
        return self._clouds[nearest].points

    def _gone_since(self, since: int, told: frozenset[int]) -> list[int]:
        """Keyframes withdrawn after the change `since`, of which a page was `told` those."""
        if since < self._forgotten_change:
            return [keyframe_id for keyframe_id in told if keyframe_id not in self._poses]
        newest_first = reversed(self._gone.items())  # they went one after the other
        return [i for i, _ in takewhile(lambda item: item[1] > since, newest_first)]

    def _has_points_of(self, keyframe: Keyframe) -> bool:
        """Whether they are here already, in the size in which they are told now."""
        held = self._clouds.get(keyframe.id)
        if held is None or held.frame_id != keyframe.frame_id:
            return False
        return bool(abs(self._poses[keyframe.id][2] - 1.0) < _SAME_SIZE)

    def _put(self, keyframe_id: int, pose: np.ndarray, size: float) -> None:
        self._change += 1
        self._gone.pop(keyframe_id, None)
        self._poses[keyframe_id] = (self._change, pose, size)

    def _forget_cloud(self, keyframe_id: int) -> None:
        cloud = self._clouds.pop(keyframe_id, None)
        self._points -= 0 if cloud is None else len(cloud.points.points)


def cloud_of(keyframe: Keyframe) -> PointsUpdate:
    """Every n-th confident point of `keyframe`, in its camera frame, as 16-bit numbers."""
    step = max(1, int(np.sqrt(keyframe.confidence.size / _SAMPLE_POINTS)))
    points = keyframe.pointmap[::step, ::step].reshape(-1, 3)
    confident = keyframe.confidence[::step, ::step].reshape(-1) > 0
    kept = confident & np.isfinite(points).all(axis=1)
    points = points[kept]
    low = points.min(axis=0) if len(points) else np.zeros(3, np.float32)
    span = float((points - low).max()) if len(points) else 0.0
    grid = span / _STEPS or 1.0
    steps = np.rint((points - low) / grid).clip(0, _STEPS).astype(np.uint16)
    steps, colours = in_own_pages(steps, keyframe.rgb[::step, ::step].reshape(-1, 3)[kept])
    return PointsUpdate(
        keyframe_id=keyframe.id,
        step=grid,
        low=low.astype(np.float32),
        points=steps,
        colours=colours,
    )
