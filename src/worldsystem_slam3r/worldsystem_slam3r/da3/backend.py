# SPDX-License-Identifier: Apache-2.0
"""The `da3` back-end: windows that overlap, laid one over the other."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64
from scipy.spatial.transform import Rotation, Slerp

from worldsystem_core.frames import Frame
from worldsystem_core.geometry.pinhole import pointmap_from_depth
from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.reconstruction import (
    Event,
    Keyframe,
    NewKeyframe,
    Pose,
    ScaleState,
    TrackingState,
)
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.da3.alignment import Placement, place_window
from worldsystem_slam3r.da3.network import Da3Network, SeenView
from worldsystem_slam3r.da3.pace import Pace
from worldsystem_slam3r.slam3r.order import FrameOrder

_WORST_DISAGREEMENT = 0.15
_MOST_STEP = 30
_NO_PICTURE = np.zeros((0, 0, 3), np.uint8)


@dataclass(frozen=True, eq=False)
class _Placed:
    """A picture of the last window: as it was seen, and where that window lies."""

    frame: Frame
    view: SeenView
    world_from_window: Sim3
    keyframe_id: int


class Da3Backend:
    """Reconstruction by Depth Anything 3 (see `ReconstructionBackend`).

    Every n-th frame goes into a window of `da3_window`, of which `da3_overlap` are shared with the
    window before. A picture's pose comes with its window, those between are interpolated. n
    follows from how long a window takes, unless `keyframe_stride` is given or `synchronous` is on.
    Pictures of another shape begin a new sub-map, and so do those after a window that the network
    failed at; its own are lost.
    """

    def __init__(self, network: Da3Network, config: Slam3rConfig) -> None:
        self._network = network
        self._config = config
        self._overlap = min(config.da3_overlap, config.da3_window - 1)  # a window has a new picture
        self._order = FrameOrder()
        fixed = config.keyframe_stride or (config.stride_min if config.synchronous else 0)
        self.pace = Pace(fixed, config.stride_min, _MOST_STEP)
        self._before: list[_Placed] = []
        self._fresh: list[Frame] = []
        self._unposed: deque[Frame] = deque()
        self._stamps_ns: deque[int] = deque(maxlen=2 * _MOST_STEP)
        self._untold: list[Event] = []
        self._since_taken = _MOST_STEP  # the first frame is taken
        self._next_keyframe = 0
        self._submap = 0
        self._shape: tuple[int, ...] | None = None
        self._last_pose: tuple[int, Float64[np.ndarray, "4 4"]] | None = None

    @property
    def _scale(self) -> ScaleState:
        return ScaleState.METRIC if self._network.metric else ScaleState.SCENE

    def feed(self, frame: Frame) -> list[Event]:
        """Take the next frame; a frame not newer than the last is refused (`BackendError`).

        An error of the network costs this frame; that those held back are lost is told with the
        next one.
        """
        self._order.check(frame)
        if self._shape not in (None, frame.rgb.shape):
            self._untold += self._ended_submap()
        self._shape = frame.rgb.shape
        self._stamps_ns.append(frame.stamp_ns)
        self._unposed.append(replace(frame, rgb=_NO_PICTURE))  # hundreds may wait
        self._since_taken += 1
        if self._since_taken < self.pace.step:
            self.pace.skipped += 1
            return self._told()
        self._since_taken = 0
        self._fresh.append(frame)
        if len(self._before) + len(self._fresh) >= self._config.da3_window:
            self._untold += self._window(frame)
        return self._told()

    def finish(self) -> list[Event]:
        """Work off what was held back. Nothing may follow."""
        if self._order.closed:
            return []
        self._order.closed = True
        return self.restart()

    def restart(self) -> list[Event]:
        """Give up the present map; see `Restartable`. The network stays loaded."""
        self._untold += self._ended_submap()
        return self._told()

    def forget_order(self) -> None:
        """See `KeepsOrder`."""
        self._order.forget()
        self._stamps_ns.clear()

    def _told(self) -> list[Event]:
        events, self._untold = self._untold, []
        return events

    def _ended_submap(self) -> list[Event]:
        """What was held back; pictures of another shape cannot be seen together with these."""
        events = self._window() if self._fresh else []
        events += self._poses_to_the_end()
        self._begin_submap()
        return events

    def _begin_submap(self) -> None:
        self._before, self._last_pose = [], None
        self._since_taken = _MOST_STEP
        self._submap += 1

    def _window(self, at_hand: Frame | None = None) -> list[Event]:
        begun = time.perf_counter()
        fresh, self._fresh = self._fresh, []
        frames = [placed.frame for placed in self._before] + fresh
        views = self._see(frames, at_hand)
        placement = self._placement(views)
        events: list[Event] = []
        if placement is None:
            self._submap += 1
            placement = Placement(Sim3.identity(), 0.0)
            self._before, self._last_pose = [], None  # that one is of the old sub-map's frame
            views, frames = views[-len(fresh) :], fresh
        now: list[_Placed] = []
        for frame, view in zip(frames, views, strict=True):
            number = self._next_keyframe
            if len(now) < len(self._before):
                number = self._before[len(now)].keyframe_id
            else:
                self._next_keyframe += 1
            now.append(_Placed(frame, view, placement.world_from_window, number))
        for placed in now[len(self._before) :]:
            events += self._tell(placed)
        self.pace.learn(time.perf_counter() - begun, len(fresh), self._interval_s())
        self._before = now[-self._overlap :]
        return events

    def _see(self, frames: list[Frame], at_hand: Frame | None) -> list[SeenView]:
        """As the network sees them; where it fails, all that waits for a pose is lost."""
        try:
            return self._network.see([frame.rgb for frame in frames])
        except BaseException:
            self._untold += self._poses_to_the_end(at_hand)
            self._begin_submap()
            raise

    def _placement(self, views: list[SeenView]) -> Placement | None:
        """Where the window lies; None where it does not fit to the one before."""
        if not self._before:
            first = np.linalg.inv(views[0].window_from_cam)  # the first camera is the origin
            return Placement(Sim3.from_pose(first), 0.0)
        shared = [
            (view, placed.view, placed.world_from_window)
            for view, placed in zip(views, self._before, strict=False)
        ]
        found = place_window(shared)
        return found if found and found.disagreement < _WORST_DISAGREEMENT else None

    def _interval_s(self) -> float:
        """Time from one frame that comes to the next, of the newest; their ids do not count them,
        and may be stamps. 0 where that is not known."""
        if len(self._stamps_ns) < 2:
            return 0.0
        passed_ns = self._stamps_ns[-1] - self._stamps_ns[0]
        return passed_ns / 1e9 / (len(self._stamps_ns) - 1)

    def _tell(self, placed: _Placed) -> list[Event]:
        """The picture's keyframe, its pose, and the poses of frames before it."""
        keyframe = self._keyframe(placed)
        world_from_cam = keyframe.world_from_cam
        events: list[Event] = [NewKeyframe(keyframe)]
        confidence = float(placed.view.confidence.mean())
        while self._unposed and self._unposed[0].id <= placed.frame.id:
            frame = self._unposed.popleft()
            pose = self._between(frame.stamp_ns, placed.frame.stamp_ns, world_from_cam)
            events.append(self._pose(frame, pose, confidence, placed.keyframe_id))
        self._last_pose = (placed.frame.stamp_ns, world_from_cam)
        return events

    def _keyframe(self, placed: _Placed) -> Keyframe:
        view, place = placed.view, placed.world_from_window
        size = np.float32(place.scale)
        gaussians = view.gaussians
        if gaussians is not None:
            gaussians = gaussians.transformed(Sim3(place.scale, np.eye(3), np.zeros(3)))
        depth = np.where(view.depth > 0, view.depth, np.nan)
        known = np.isfinite(depth)
        return Keyframe(
            id=placed.keyframe_id,
            frame_id=placed.frame.id,
            stamp_ns=placed.frame.stamp_ns,
            world_from_cam=place.apply_pose(view.window_from_cam),
            camera=view.camera,
            pointmap=pointmap_from_depth(depth, view.camera) * size,
            confidence=np.where(known, view.confidence, 0).astype(np.float32),
            rgb=view.rgb.copy(),
            scale=self._scale,
            submap=self._submap,
            gaussians=gaussians,
        )

    def _between(
        self, stamp_ns: int, end_ns: int, end: Float64[np.ndarray, "4 4"]
    ) -> Float64[np.ndarray, "4 4"]:
        """The pose at a time between the last told pose and `end`."""
        if self._last_pose is None or stamp_ns >= end_ns:
            return end
        begin_ns, begin = self._last_pose
        share = (stamp_ns - begin_ns) / max(end_ns - begin_ns, 1)
        turn = Slerp([0, 1], Rotation.from_matrix([begin[:3, :3], end[:3, :3]]))
        pose = np.eye(4)
        pose[:3, :3] = turn(np.clip(share, 0, 1)).as_matrix()
        pose[:3, 3] = (1 - share) * begin[:3, 3] + share * end[:3, 3]
        return pose

    def _pose(
        self, frame: Frame, pose: Float64[np.ndarray, "4 4"], confidence: float, keyframe: int
    ) -> Pose:
        return Pose(
            frame_id=frame.id,
            stamp_ns=frame.stamp_ns,
            world_from_cam=pose,
            confidence=confidence,
            state=TrackingState.TRACKED,
            keyframe_id=keyframe,
            scale=self._scale,
            submap=self._submap,
        )

    def _poses_to_the_end(self, at_hand: Frame | None = None) -> list[Event]:
        """Frames after the last picture that was looked at: where they are is not known. Of the one
        `at_hand` an error tells."""
        last = self._last_pose[1] if self._last_pose else np.eye(4)
        keyframe = self._next_keyframe - 1
        lost: list[Event] = [
            replace(self._pose(frame, last, 0.0, keyframe), state=TrackingState.LOST)
            for frame in self._unposed
            if at_hand is None or frame.id != at_hand.id
        ]
        self._unposed.clear()
        return lost
