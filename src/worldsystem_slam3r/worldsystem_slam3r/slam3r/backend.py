# SPDX-License-Identifier: Apache-2.0
"""The `slam3r` back-end: frames in; poses and key frames out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from worldsystem_core.frames import Frame
from worldsystem_core.reconstruction import Event, TrackingState
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.model.preprocess import INPUT_PX, normalised
from worldsystem_slam3r.slam3r.events import Counts, EventMaker, Outcome
from worldsystem_slam3r.slam3r.intake import Fault, Intake, Picture
from worldsystem_slam3r.slam3r.networks import Networks
from worldsystem_slam3r.slam3r.order import FrameOrder
from worldsystem_slam3r.slam3r.shots import Shot
from worldsystem_slam3r.slam3r.tracker import SceneTracker
from worldsystem_slam3r.slam3r.views import View


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
        self._order = FrameOrder()
        self._intake = Intake(picture_px=picture_px, focal_px=self._config.focal_px)
        self._tracker = SceneTracker(networks, self._config, picture_px)
        self._maker = EventMaker(self._config)
        self._waiting: list[Picture] = []
        self._next_index = 0

    @property
    def counts(self) -> Counts:
        """What the pictures fed so far were."""
        return replace(self._maker.counts)

    @property
    def keyframe_stride(self) -> int:
        """Frames from one key frame to the next, as the motion demands now."""
        return self._tracker.scene.stride

    @property
    def focal_px(self) -> float:
        """Estimated focal length at the networks' picture size; 0 while there is none."""
        camera = self._tracker.judge.focal.camera
        return 0.0 if camera is None else camera.fx

    def similar_keyframes(self, keyframe_id: int, count: int) -> list[int]:
        """Key frames that the networks' retrieval likes for one of the newest, best first.

        Only those still in the buffer of scene frames can be found.
        """
        asked = self._maker.views.get(keyframe_id)
        buffered = set(map(id, self._tracker.scene.buffer.views))
        others = {
            key: view
            for key, view in list(self._maker.views.items())
            if key != keyframe_id and id(view) in buffered
        }
        if asked is None or not others:
            return []
        scores = self._tracker.scene.steps.serves(list(others.values()), [asked]).tolist()
        return [key for _, key in sorted(zip(scores, others, strict=True), reverse=True)][:count]

    def feed(self, frame: Frame) -> list[Event]:
        """Take the next frame; a frame not newer than the last is refused (`BackendError`)."""
        self._order.check(frame)
        self._waiting.append(self._intake.picture(frame))
        self._maker.counts.fed += 1
        if self._intake.view_changed:
            self._tracker.judge.forget_focal()
        following = self._tracker.state is TrackingState.TRACKED
        if following and len(self._waiting) < self._config.register_together:
            return []
        return self._work_off()

    def finish(self) -> list[Event]:
        """Report what was held back. Nothing may follow."""
        if self._order.closed:
            return []
        self._order.closed = True
        events = self._work_off() if self._waiting else []
        return events + self._events(self._tracker.finish(), [])

    def close(self) -> None:
        """`feed` may not be called any more; memory is given back with the object."""
        self._order.closed = True

    def _work_off(self) -> list[Event]:
        """Give the waiting pictures to the tracker, the faulty ones passed by."""
        waiting, self._waiting = self._waiting, []
        sound = [picture for picture in waiting if picture.fault is Fault.NONE]
        outcome = self._tracker.track(self._shots(sound)) if sound else Outcome()
        return self._events(outcome, [p for p in waiting if p.fault is not Fault.NONE])

    def _events(self, outcome: Outcome, faulty: list[Picture]) -> list[Event]:
        worlds, state = self._tracker.world_from_scene, self._tracker.state
        return self._maker.events(outcome, worlds, faulty, state)

    def _shots(self, pictures: list[Picture]) -> list[Shot]:
        images = normalised(np.stack([picture.rgb for picture in pictures]), self._device)
        shots = []
        for picture, tokens in zip(pictures, self._networks.encode(images), strict=True):
            shots.append(Shot(picture, View(self._next_index, tokens)))
            self._next_index += 1
        return shots
