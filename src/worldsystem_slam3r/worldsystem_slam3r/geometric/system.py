# SPDX-License-Identifier: Apache-2.0
"""The `geometric` back-end: monocular video in, poses and dense keyframes out, without a network.

Each picture is tracked from the last keyframe and located by its known points. A picture that has
moved on becomes a keyframe: new points are triangulated, the last keyframes are adjusted together,
and its dense depth is swept once the next keyframe is there. Unit of length: the median depth of
the first keyframe's points is 1 (`scene` scale).
"""

from __future__ import annotations

import logging

import cv2
import numpy as np

from worldsystem_core.errors import BackendError
from worldsystem_core.frames import Camera, Frame
from worldsystem_core.geometry.se3 import inverse
from worldsystem_core.pages import in_own_pages
from worldsystem_core.reconstruction import (
    Event,
    Pose,
    RemovedKeyframes,
    TrackingState,
)
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.geometric.bootstrap import Bootstrap, Held, Start
from worldsystem_slam3r.geometric.bundle import adjust
from worldsystem_slam3r.geometric.calibrate import LAST_LOOK_KEYFRAMES, LensSearch, settle
from worldsystem_slam3r.geometric.dense import View
from worldsystem_slam3r.geometric.depth_queue import DepthQueue
from worldsystem_slam3r.geometric.health import HealthMonitor
from worldsystem_slam3r.geometric.intake import Intake, Picture
from worldsystem_slam3r.geometric.locate import Locator
from worldsystem_slam3r.geometric.lookback import Passed, located_before
from worldsystem_slam3r.geometric.map_store import KeyframeRecord, Map
from worldsystem_slam3r.geometric.relocalise import revisit
from worldsystem_slam3r.geometric.telling import moved_keyframes, unknown_pose
from worldsystem_slam3r.geometric.tracking import FeatureTracker, Tracks
from worldsystem_slam3r.health import Health

log = logging.getLogger(__name__)

FIXED_KEYFRAMES = 3
OUTLIER_PX = 3.0
KEPT_KEYFRAMES = 24
"""At least: those that are refined together, and those held for it, are kept in any case."""
RESTART_S, FINISH_S = 5.0, 10.0
"""How long keyframes that wait for their depth may hold up the next map, and the end."""


class GeometricBackend:
    """Reconstruction by multi-view geometry (see `ReconstructionBackend`).

    Frames before the start are held back and get their poses when it succeeds; those it passes
    over are reported as INITIALISING. `close` (also done by `finish`) joins the worker.
    """

    def __init__(self, config: Slam3rConfig | None = None) -> None:
        self._config = config or Slam3rConfig()
        self._refined = self._config.window_keyframes + FIXED_KEYFRAMES
        cv2.setNumThreads(self._config.threads)
        self._intake = Intake(self._config.processing_width, self._config.focal_px)
        self._tracker = FeatureTracker(self._config.tracks)
        self._depths = DepthQueue(self._config)
        self._bootstrap: Bootstrap | None = None
        self._map: Map | None = None
        self._locator: Locator | None = None
        self._last: tuple[int, int] | None = None
        self._next_keyframe_id = 0
        self._calibrating = self._adjusted = False
        self._lens_search = LensSearch()
        self._monitor = HealthMonitor()
        self._untold: list[Event] = []
        self._finished = False

    @property
    def focal_px(self) -> float:
        """Focal length in use, at the processing size; 0 before the start."""
        return 0.0 if self._map is None else float(self._map.K4[0])

    @property
    def lens(self) -> Camera | None:
        """The filmed camera at the processing size, as told or found out; None while neither."""
        return self._intake.known_camera

    @property
    def health(self) -> Health:
        """How far the newest pose and the map can be trusted, and what is wrong."""
        self._monitor.lens_problem = self._lens_search.note
        return self._monitor.health

    @property
    def dropped_keyframes(self) -> int:
        """Keyframes that never got dense depth because the worker was behind."""
        return self._depths.dropped

    def feed(self, frame: Frame) -> list[Event]:
        """Take the next frame; one not newer than the last is refused (`BackendError`), and until a
        `restart` one of another shape or camera (`ShapeChanged`)."""
        self._check_order(frame)
        was_unknown = self._intake.camera_is_unknown
        picture = self._intake.picture(frame, mapped=self._map is not None)
        self._last = (frame.id, frame.stamp_ns)
        self._monitor.picture(picture.stamp_ns, picture.grey)
        events = self._told_depths()
        if was_unknown and not self._intake.camera_is_unknown:
            events += self._forget_start()
        events += self._initialise(picture) if self._map is None else self._track(picture)
        self._monitor.corners(len(self._tracker.current))
        return events

    def collect(self) -> list[Event]:
        """The keyframes whose depth has come in since the last frame."""
        return self._told_depths()

    def finish(self) -> list[Event]:
        """Report what was held back; the last keyframes get their depth. Nothing may follow."""
        if self._finished:
            return []
        self._finished = True
        if self._map is not None:
            if self._calibrating and len(self._map.keyframes) >= LAST_LOOK_KEYFRAMES:
                self._calibrate()
            self._submit_waiting(FINISH_S)
        self.close()
        return self._told_depths() + self._moved(force=True) + self._never_begun()

    def restart(self) -> list[Event]:
        """Give up the present map and begin a new one with the next frame, in a gauge of its own.

        Returns what was held back of the old one; no event of it comes afterwards. Frame order,
        keyframe and track ids go on, and what is known of the lens unless a frame was refused.
        """
        events: list[Event] = []
        if self._map is not None:
            self._submit_waiting(RESTART_S)
            self._depths.drain()
            events += self._told_depths() + self._moved(force=True)
            self._next_keyframe_id = self._map.next_id
            self._map = self._locator = self._bootstrap = None
            self._depths.begin_anew()
        if self._intake.refused:
            events += self._forget_start()
            self._intake = self._intake.anew()
        return events

    def forget_order(self) -> None:
        """The next frame may have any id and stamp (`KeepsOrder`); only after a `restart`. Frames
        that wait for a start are of the clock before, and let go."""
        self._last = self._bootstrap = None
        self._untold = []
        self._monitor = HealthMonitor()

    def _forget_start(self) -> list[Event]:
        """Begin with another lens; the frames seen through the one before get no pose."""
        events = self._never_begun()
        self._bootstrap, self._lens_search = None, LensSearch()
        return events

    def _never_begun(self) -> list[Event]:
        """Poses of the frames for which no start has come."""
        start = self._bootstrap
        if self._map is not None or start is None:
            return []
        items: list[Held | Passed] = [*start.given_up, *start.passed, *start.waiting]
        return [unknown_pose(item) for item in items]

    def close(self) -> None:
        """Join the worker thread; `feed` may not be called any more."""
        self._depths.close()

    def _check_order(self, frame: Frame) -> None:
        if self._finished:
            raise BackendError("the reconstruction has finished; create a new back-end")
        if self._last and (frame.id <= self._last[0] or frame.stamp_ns < self._last[1]):
            raise BackendError(
                f"frame {frame.id} at {frame.stamp_ns} ns is not newer than frame "
                f"{self._last[0]} at {self._last[1]} ns; feed frames in order"
            )

    def _initialise(self, picture: Picture) -> list[Event]:
        if self._bootstrap is None:
            self._bootstrap = Bootstrap(self._tracker, estimate_focal=self._lens_is_unknown)
        start = self._bootstrap.advance(picture)
        width = picture.camera.width
        flow = self._bootstrap.moved_px / width, self._bootstrap.beyond_turn_px / width
        self._monitor.waiting(picture.stamp_ns, *flow)
        events: list[Event] = [unknown_pose(item) for item in self._bootstrap.given_up]
        self._bootstrap.given_up = []
        if start is not None:
            events += self._begin(start)
        return events

    def _looked_back(self, passed: list[Passed]) -> list[Event]:
        """The poses of frames passed over before the start, where they can still be found."""
        assert self._map is not None
        found = located_before(self._map, self._map.latest(2)[0], passed)
        return [
            self._pose(item.frame_id, item.stamp_ns, inverse(found[item.frame_id]), 0.5)
            if item.frame_id in found
            else unknown_pose(item)
            for item in passed
        ]

    def _begin(self, start: Start) -> list[Event]:
        """Make the first map of two keyframes; the frames before it get their poses."""
        assert self._bootstrap is not None
        first, last = start.held[0], start.held[-1]
        first_track = int(first.tracks.ids.min())  # all others are of the same picture or newer
        world = self._map = Map(start.K4, self._next_keyframe_id, first_track)
        self._calibrating = self._lens_is_unknown
        self._locator = Locator(world, self._tracker, start.cam_from_world[-1])
        for picture, held, pose in (
            (start.reference, first, start.cam_from_world[0]),
            (start.current, last, start.cam_from_world[-1]),
        ):
            world.add(self._record(picture, held.tracks, pose))
            rows = world.points.rows(start.ids)
            world.points.position[rows] = start.points
        self._depths.begin_anew(world.keyframes)
        self._refine()
        before, self._bootstrap.passed = self._bootstrap.passed, []
        events = self._looked_back(before)
        self._tracker.renew(start.current.grey)
        self._extend_latest()
        return events + [
            self._pose(item.frame_id, item.stamp_ns, inverse(pose), 1.0)
            for item, pose in zip(start.held, start.cam_from_world, strict=True)
        ]

    @property
    def _lens_is_unknown(self) -> bool:
        """Whether nobody told the lens and it was not found out yet."""
        return self._intake.camera_is_unknown and not self._lens_search.begun

    def _track(self, picture: Picture) -> list[Event]:
        assert self._map is not None
        assert self._locator is not None
        found = self._locator.locate(picture)
        if found is None:
            self._monitor.lost()
            self._submit_waiting()  # the way back is found by dense depth
            lost = Held(picture.frame_id, picture.stamp_ns, Tracks.none())
            return [unknown_pose(lost, TrackingState.LOST, self._locator.cam_from_world)]
        self._monitor.followed(found.inliers, found.confidence)
        if self._locator.wants_keyframe:
            self._add_keyframe(picture)
        pose = inverse(self._locator.cam_from_world)
        events, self._untold = self._untold, []
        events.append(self._pose(picture.frame_id, picture.stamp_ns, pose, found.confidence))
        return events + self._moved()

    def _record(
        self, picture: Picture, tracks: Tracks, cam_from_world: np.ndarray
    ) -> KeyframeRecord:
        assert self._map is not None
        grey, rgb = in_own_pages(picture.grey, picture.small_rgb())
        return KeyframeRecord(
            id=self._map.new_keyframe_id(),
            frame_id=picture.frame_id,
            stamp_ns=picture.stamp_ns,
            cam_from_world=cam_from_world,
            ids=tracks.ids,
            px=tracks.px.astype(np.float64),
            grey=grey,
            rgb=rgb,
            view=View.of(grey, self._map.pinhole(picture.camera)),
        )

    def _add_keyframe(self, picture: Picture) -> None:
        """Insert, triangulate, adjust, let depth be swept, and renew the tracks."""
        assert self._map is not None
        assert self._locator is not None
        world, pose = self._map, self._locator.cam_from_world
        self._tracker.extend(revisit(world, picture.grey, pose, self._tracker.current.ids))
        record = self._record(picture, self._tracker.current, pose)
        world.add(record)
        world.triangulate_new(record)
        self._depths.add(record.id)
        self._refine()
        if self._lens_search.due(len(world.keyframes)):
            self._calibrate()
        self._locator.correct(record.cam_from_world)
        if not self._calibrating:
            self._depths.submit_some(world)
        self._tracker.renew(record.grey)
        self._extend_latest()
        world.release(max(KEPT_KEYFRAMES, self._refined))
        self._tracker.keep(self._tracker.current.ids >= world.points.base)

    def _calibrate(self) -> None:
        """Settle an unknown lens (dense depth waits for that), or check the one that was told."""
        assert self._map is not None
        self._calibrating = False
        self._lens_search.unknown |= self._intake.camera_is_unknown
        found = self._lens_search.search(self._map, self._intake.lens)
        if found is None:
            return
        change = self._intake.adopt(found.filmed)
        settle(self._map, found, change, self._intake.lens)
        self._tracker.move_over(change)
        self._withdraw()
        self._refine()

    def _withdraw(self) -> None:
        """Take back what was told of the keyframes: their depth is measured anew."""
        assert self._map is not None
        gone = self._map.renumber()
        if gone:
            self._untold.append(RemovedKeyframes(tuple(gone)))
        self._depths.begin_anew(self._map.keyframes)

    def _extend_latest(self) -> None:
        """Tracks that were just found belong to the newest keyframe too."""
        assert self._map is not None
        record = self._map.latest(1)[0]
        known = np.isin(self._tracker.current.ids, record.ids)
        fresh = self._tracker.current.chosen(~known)
        record.ids = np.concatenate([record.ids, fresh.ids])
        record.px = np.vstack([record.px, fresh.px.astype(np.float64)])
        self._map.add(record)

    def _refine(self) -> None:
        """Adjust the newest keyframes, the oldest of them held, and drop what does not fit."""
        assert self._map is not None
        self._adjusted = True
        world = self._map
        records = world.latest(self._refined)
        fixed = max(1, min(FIXED_KEYFRAMES, len(records) - 2))
        bundle, rows = world.bundle(records, fixed)
        if len(rows) < 20:
            return
        result = adjust(bundle)
        for i, record in enumerate(records):
            record.cam_from_world[:3, :3] = result.rotations[i]
            record.cam_from_world[:3, 3] = result.translations[i]
        world.points.position[rows] = result.points
        self._monitor.fitted(float(np.nanmedian(result.error_px)) / records[-1].grey.shape[1])
        bad = ~(result.error_px < OUTLIER_PX)
        world.forget_outliers(records, bad, bundle, rows)

    def _submit_waiting(self, wait_s: float = 0.0) -> None:
        """Sweep the keyframes that wait (`DepthQueue.submit_waiting`), also before an unknown lens
        is found out: once it is they are withdrawn and swept anew."""
        assert self._map is not None
        self._depths.submit_waiting(self._map, wait_s)

    def _told_depths(self) -> list[Event]:
        """Emit the keyframes whose depth has come in, after those that were withdrawn."""
        events, self._untold = self._untold, []
        return [*events, *self._depths.told(self._map)]

    def _moved(self, *, force: bool = False) -> list[Event]:
        """Corrections not told yet; only an adjustment makes any."""
        if self._map is None or not (self._adjusted or force):
            return []
        self._adjusted = False
        return moved_keyframes(self._map, force=force)

    def _pose(self, frame_id: int, stamp_ns: int, pose: np.ndarray, confidence: float) -> Pose:
        return Pose(
            frame_id=frame_id,
            stamp_ns=stamp_ns,
            world_from_cam=pose,
            confidence=confidence,
            state=TrackingState.TRACKED,
            keyframe_id=self._depths.newest_told,
        )
