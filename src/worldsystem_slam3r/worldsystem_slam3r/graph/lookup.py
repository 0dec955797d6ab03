# SPDX-License-Identifier: Apache-2.0
"""A picture without a place of its own is looked up among the keyframes."""

from __future__ import annotations

from dataclasses import replace

from worldsystem_core.frames import Camera, Frame
from worldsystem_core.reconstruction import Pose, TrackingState
from worldsystem_slam3r.graph.atlas import Atlas
from worldsystem_slam3r.graph.places import PlaceIndex
from worldsystem_slam3r.graph.relocalise import Relocaliser

LOOK_EVERY = 3
"""Every so many pictures without a place one is looked up."""
FOUND_CONFIDENCE = 0.5


class Lookup:
    """Locates single pictures against the placed keyframes that `index` finds."""

    def __init__(self, atlas: Atlas, index: PlaceIndex) -> None:
        self._atlas = atlas
        self._relocaliser = Relocaliser(index)
        self._looked = 0

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
