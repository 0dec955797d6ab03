# SPDX-License-Identifier: Apache-2.0
"""The `slam3r` back-end: frames in; poses, key frames and a bounded cloud out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from worldsystem_core.errors import BackendError
from worldsystem_core.frames import Frame
from worldsystem_core.reconstruction import Event, NewKeyframe, Pose, TrackingState
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.model.preprocess import INPUT_PX, normalised
from worldsystem_slam3r.slam3r.cloud import BoundedCloud
from worldsystem_slam3r.slam3r.intake import Fault, Intake, Picture
from worldsystem_slam3r.slam3r.networks import Networks
from worldsystem_slam3r.slam3r.shots import Shot, keyframe_of
from worldsystem_slam3r.slam3r.tracker import Outcome, SceneTracker, Told
from worldsystem_slam3r.slam3r.views import View, share_of


@dataclass(frozen=True)
class Counts:
    """What the pictures fed so far were."""

    fed: int = 0
    blank: int = 0
    duplicate: int = 0
    lost: int = 0
    keyframes: int = 0


class Slam3rBackend:
    """Reconstruction by SLAM3R's networks (see `ReconstructionBackend`).

    Frames before the start are held back, at most `initial_window` × `stride_max`, and get their
    poses when it succeeds. While the camera is followed `register_together` frames wait for each
    other. Blank pictures are reported lost without being looked at, repeated ones get the last
    pose again. Memory does not grow with the length of the video.
    """

    def __init__(
        self,
        networks: Networks,
        config: Slam3rConfig | None = None,
        *,
        picture_px: int = INPUT_PX,
        device: str = "cpu",
    ) -> None:
        self._config = config or Slam3rConfig(backend="slam3r")
        self._networks = networks
        self._device = device
        self._intake = Intake(picture_px=picture_px, focal_px=self._config.focal_px)
        self._tracker = SceneTracker(networks, self._config, picture_px)
        self.cloud = BoundedCloud(self._config.cloud_points, seed=self._config.seed)
        self._waiting: list[Picture] = []
        self._next_index = 0
        self._next_keyframe = 0
        self._last: tuple[int, int] | None = None
        self._last_pose = np.eye(4)
        self._counts = dict.fromkeys(("fed", "blank", "duplicate", "lost", "keyframes"), 0)
        self._finished = False

    @property
    def counts(self) -> Counts:
        """What the pictures fed so far were."""
        return Counts(**self._counts)

    @property
    def keyframe_stride(self) -> int:
        """Frames from one key frame to the next, as the motion demands now."""
        return self._tracker.scene.stride

    @property
    def focal_px(self) -> float:
        """Estimated focal length at the networks' picture size; 0 while there is none."""
        camera = self._tracker.focal.camera
        return 0.0 if camera is None else camera.fx

    def feed(self, frame: Frame) -> list[Event]:
        """Take the next frame; a frame not newer than the last is refused (`BackendError`)."""
        self._check_order(frame)
        picture = self._intake.picture(frame)
        self._counts["fed"] += 1
        if self._intake.view_changed:
            self._tracker.focal.forget()
        self._waiting.append(picture)
        following = self._tracker.state is TrackingState.TRACKED
        if following and len(self._waiting) < self._config.register_together:
            return []
        return self._work_off()

    def finish(self) -> list[Event]:
        """Report what was held back. Nothing may follow."""
        if self._finished:
            return []
        events = self._work_off() if self._waiting else []
        self._finished = True
        return events + self._events(self._tracker.finish())

    def close(self) -> None:
        """`feed` may not be called any more; memory is given back with the object."""
        self._finished = True

    def _check_order(self, frame: Frame) -> None:
        if self._finished:
            raise BackendError("the reconstruction has finished; create a new back-end")
        if self._last and (frame.id <= self._last[0] or frame.stamp_ns < self._last[1]):
            raise BackendError(
                f"frame {frame.id} at {frame.stamp_ns} ns is not newer than frame "
                f"{self._last[0]} at {self._last[1]} ns; feed frames in order"
            )
        self._last = (frame.id, frame.stamp_ns)

    def _work_off(self) -> list[Event]:
        """Give the waiting pictures to the tracker, the faulty ones passed by."""
        waiting, self._waiting = self._waiting, []
        sound = [picture for picture in waiting if picture.fault is Fault.NONE]
        outcome = self._tracker.track(self._shots(sound)) if sound else Outcome()
        return self._events(outcome, [p for p in waiting if p.fault is not Fault.NONE])

    def _shots(self, pictures: list[Picture]) -> list[Shot]:
        images = normalised(np.stack([picture.rgb for picture in pictures]), self._device)
        shots = []
        for picture, tokens in zip(pictures, self._networks.encode(images), strict=True):
            shots.append(Shot(picture, View(self._next_index, tokens)))
            self._next_index += 1
        return shots

    def _events(self, outcome: Outcome, faulty: list[Picture] | None = None) -> list[Event]:
        """New key frames, then the poses in the order of their frames."""
        events: list[Event] = []
        for shot in outcome.keyframes:
            keyframe = keyframe_of(
                shot,
                id=self._next_keyframe,
                world=self._tracker.world_from_scene[shot.view.segment],
                least_confidence=self._config.keyframe_confidence,
            )
            self._next_keyframe += 1
            self._counts["keyframes"] += 1
            self.cloud.add(keyframe)
            events.append(NewKeyframe(keyframe))
        told = {item.shot.picture.frame_id: item for item in outcome.told}
        passed_by = {picture.frame_id: picture for picture in faulty or []}
        for frame_id in sorted([*told, *passed_by]):
            by = passed_by.get(frame_id)
            events.append(self._pose(told[frame_id]) if by is None else self._faulty(by))
        return events

    def _pose(self, told: Told) -> Pose:
        shot, picture = told.shot, told.shot.picture
        if told.state is not TrackingState.TRACKED:
            self._counts["lost"] += 1
            return self._unknown(picture, told.state)
        assert shot.placement is not None
        world = self._tracker.world_from_scene[shot.view.segment]
        self._last_pose = world.apply_pose(shot.placement.scene_from_cam)
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
        )

    def _faulty(self, picture: Picture) -> Pose:
        """A blank picture is lost; a repeated one shows the camera where it was."""
        blank = picture.fault is Fault.BLANK
        self._counts["blank" if blank else "duplicate"] += 1
        state = self._tracker.state
        if blank and state is TrackingState.TRACKED:
            return self._unknown(picture, TrackingState.LOST)
        if state is not TrackingState.TRACKED:
            return self._unknown(picture, state)
        return Pose(
            frame_id=picture.frame_id,
            stamp_ns=picture.stamp_ns,
            world_from_cam=self._last_pose,
            confidence=0.5,
            state=state,
            keyframe_id=self._next_keyframe - 1,
        )

    def _unknown(self, picture: Picture, state: TrackingState) -> Pose:
        return Pose(
            frame_id=picture.frame_id,
            stamp_ns=picture.stamp_ns,
            world_from_cam=self._last_pose,
            confidence=0.0,
            state=state,
        )
