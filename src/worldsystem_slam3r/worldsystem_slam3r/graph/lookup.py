# SPDX-License-Identifier: Apache-2.0
"""A picture without a place of its own is looked up among the keyframes."""

from __future__ import annotations

from dataclasses import replace

from worldsystem_core.frames import Camera, Frame
from worldsystem_core.reconstruction import Pose, TrackingState
from worldsystem_slam3r.graph.atlas import Atlas
from worldsystem_slam3r.graph.loops import LoopFinder
from worldsystem_slam3r.graph.reach import Reach
from worldsystem_slam3r.graph.relocalise import Located, Relocaliser

LOOK_EVERY = 3
"""Every so many pictures without a place one is looked up."""
FOUND_CONFIDENCE = 0.5
STRONG_INLIERS, STRONG_SHARE = 50, 0.5
"""A place found as clearly is believed at once: a rendered room gave 122 to 400, 90 % and more."""


class Lookup:
    """Locates single pictures against the placed keyframes that `finder` knows.

    What lies beyond the camera's reach since it was tracked is not believed, and what is found by
    little only once a second picture agrees.
    """

    def __init__(self, atlas: Atlas, finder: LoopFinder) -> None:
        self._atlas = atlas
        self._refused = finder.refused
        self._relocaliser = Relocaliser(finder.index)
        self._reach = Reach(atlas, finder)
        self._looked = 0
        self._doubted: Pose | None = None

    def tracked(self, told: Pose) -> None:
        """The back-end follows the camera, which is there, in the world."""
        self._reach.tracked(told)
        self._doubted = None

    def pose(self, frame: Frame, lens: Camera | None) -> Pose | None:
        """Where it was taken; None where that is not clear, or it is not its turn.

        A `lens` that the back-end goes by stands for the camera that was told, which may be wrong.
        """
        self._looked += 1
        if (self._looked - 1) % LOOK_EVERY:
            return None
        stations = {
            kept.id: kept.station
            for kept in self._atlas.keyframes.values()
            if kept.station is not None and self._atlas.is_placed(kept.submap)
        }
        camera = stations[max(stations)].camera if stations else None
        frame = frame if lens is None else replace(frame, camera=lens)
        found = self._relocaliser.locate(frame, stations, camera)
        if found is None:
            return None
        pose = self._pose(frame, found)
        return pose if self._is_believed(pose, found) else None

    def _is_believed(self, pose: Pose, found: Located) -> bool:
        if not self._reach.allows(pose):
            self._refused["unreachable"] += 1
            return False
        before, self._doubted = self._doubted, None
        if found.inliers >= STRONG_INLIERS and found.share >= STRONG_SHARE:
            return True
        if before is not None and self._reach.joins(before, pose):
            return True
        self._doubted = pose
        self._refused["single_picture"] += 1
        return False

    def _pose(self, frame: Frame, found: Located) -> Pose:
        kept = self._atlas.keyframes[found.id]
        return Pose(
            frame_id=frame.id,
            stamp_ns=frame.stamp_ns,
            world_from_cam=kept.world.apply_pose(found.keyframe_from_cam),
            confidence=FOUND_CONFIDENCE * found.share,
            state=TrackingState.TRACKED,
            keyframe_id=found.id,
            scale=self._atlas.scale,
            submap=kept.submap,
        )
