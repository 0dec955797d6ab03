# SPDX-License-Identifier: Apache-2.0
"""From placed shots to the events of the contract; counts what the pictures were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

import numpy as np

from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.reconstruction import Event, NewKeyframe, Pose, TrackingState
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.slam3r.intake import Fault, Picture
from worldsystem_slam3r.slam3r.shots import Shot, keyframe_of
from worldsystem_slam3r.slam3r.views import View, share_of

_REPEATED_CONFIDENCE = 0.5


@dataclass(frozen=True, eq=False)
class Told:
    """What became of one shot."""

    shot: Shot
    state: TrackingState


@dataclass(eq=False)
class Outcome:
    """What became of the shots given, and those that turned out to be key frames."""

    told: list[Told] = field(default_factory=list)
    keyframes: list[Shot] = field(default_factory=list)


@dataclass
class Counts:
    """What the pictures fed so far were."""

    fed: int = 0
    blank: int = 0
    duplicate: int = 0
    lost: int = 0
    keyframes: int = 0


class EventMaker:
    """Numbers key frames and turns scene poses into world poses."""

    def __init__(self, config: Slam3rConfig) -> None:
        self._config = config
        self.counts = Counts()
        self._next_keyframe = 0
        self._last_pose = np.eye(4)
        self._submap = 0
        self.views: WeakValueDictionary[int, View] = WeakValueDictionary()

    def events(
        self,
        outcome: Outcome,
        world_from_scene: Mapping[int, Sim3],
        faulty: Sequence[Picture] = (),
        state: TrackingState = TrackingState.INITIALISING,
    ) -> list[Event]:
        """New key frames, then the poses in the order of their frames.

        `faulty` pictures were passed by; `state` is the tracker's.
        """
        events: list[Event] = []
        for shot in outcome.keyframes:
            events.append(self._keyframe(shot, world_from_scene[shot.view.segment]))
        told = {item.shot.picture.frame_id: item for item in outcome.told}
        passed_by = {picture.frame_id: picture for picture in faulty}
        for frame_id in sorted([*told, *passed_by]):
            if frame_id in passed_by:
                events.append(self._faulty(passed_by[frame_id], state))
            else:
                events.append(self._pose(told[frame_id], world_from_scene))
        return events

    def _keyframe(self, shot: Shot, world: Sim3) -> NewKeyframe:
        keyframe = keyframe_of(
            shot,
            id=self._next_keyframe,
            world=world,
            least_confidence=self._config.keyframe_confidence,
        )
        self.views[self._next_keyframe] = shot.view
        self._next_keyframe += 1
        self.counts.keyframes += 1
        return NewKeyframe(keyframe)

    def _pose(self, told: Told, world_from_scene: Mapping[int, Sim3]) -> Pose:
        shot, picture = told.shot, told.shot.picture
        if told.state is not TrackingState.TRACKED:
            self.counts.lost += 1
            return self._unknown(picture, told.state)
        assert shot.placement is not None
        world = world_from_scene[shot.view.segment]
        self._last_pose = world.apply_pose(shot.placement.scene_from_cam)
        self._submap = shot.view.segment
        covariance = shot.placement.covariance
        unit = np.diag([world.scale] * 3 + [1.0] * 3) @ np.kron(np.eye(2), world.rotation)
        return Pose(
            frame_id=picture.frame_id,
            stamp_ns=picture.stamp_ns,
            world_from_cam=self._last_pose,
            confidence=shot.placement.inlier_share * share_of(shot.view.world_score),
            state=TrackingState.TRACKED,
            keyframe_id=self._next_keyframe - 1,
            covariance=unit @ covariance @ unit.T if np.isfinite(covariance).all() else None,
            submap=self._submap,
        )

    def _faulty(self, picture: Picture, state: TrackingState) -> Pose:
        """A blank picture is lost; a repeated one shows the camera where it was."""
        if picture.fault is Fault.BLANK:
            self.counts.blank += 1
            lost = state is TrackingState.TRACKED
            return self._unknown(picture, TrackingState.LOST if lost else state)
        self.counts.duplicate += 1
        if state is not TrackingState.TRACKED:
            return self._unknown(picture, state)
        return Pose(
            frame_id=picture.frame_id,
            stamp_ns=picture.stamp_ns,
            world_from_cam=self._last_pose,
            confidence=_REPEATED_CONFIDENCE,
            state=state,
            keyframe_id=self._next_keyframe - 1,
            submap=self._submap,
        )

    def _unknown(self, picture: Picture, state: TrackingState) -> Pose:
        return Pose(
            frame_id=picture.frame_id,
            stamp_ns=picture.stamp_ns,
            world_from_cam=self._last_pose,
            confidence=0.0,
            state=state,
        )
