# SPDX-License-Identifier: Apache-2.0
"""The `slam3r` back-end for whole videos: every frame's geometry may look ahead."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from worldsystem_core.errors import BackendError
from worldsystem_core.frames import Frame
from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.reconstruction import Event, TrackingState
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.model.preprocess import INPUT_PX, normalised
from worldsystem_slam3r.slam3r.events import Counts, EventMaker, Outcome, Told
from worldsystem_slam3r.slam3r.intake import Fault, Intake, Picture
from worldsystem_slam3r.slam3r.judge import Judge
from worldsystem_slam3r.slam3r.networks import Networks
from worldsystem_slam3r.slam3r.offline import OfflineScene, OfflineSettings
from worldsystem_slam3r.slam3r.order import FrameOrder
from worldsystem_slam3r.slam3r.shots import Shot, read_samples
from worldsystem_slam3r.slam3r.views import View

_NO_TOKENS = torch.zeros(1, 1)
_ONE_SCENE = {0: Sim3(1.0, np.eye(3), np.zeros(3))}


class WholeVideoBackend:
    """Keeps the pictures (150 kB each at 224 px) and places them all when the video has ended.

    At most `whole_video_frames`: one more is a `BackendError`. Every event comes from `finish`.
    """

    def __init__(
        self,
        networks: Networks,
        config: Slam3rConfig | None = None,
        *,
        picture_px: int = INPUT_PX,
        device: str = "cpu",
    ) -> None:
        self._config = config or Slam3rConfig(backend="slam3r", whole_video=True)
        self._networks = networks
        self._device = device
        self._order = FrameOrder()
        self._intake = Intake(picture_px=picture_px, focal_px=self._config.focal_px)
        self._judge = Judge(self._config, picture_px)
        self._maker = EventMaker(self._config)
        self._pictures: list[Picture] = []
        self._settling: dict[int, Shot] = {}
        self._told_keyframes = 0

    @property
    def counts(self) -> Counts:
        """What the pictures fed so far were."""
        return replace(self._maker.counts)

    def feed(self, frame: Frame) -> list[Event]:
        """Take the next frame; a frame not newer than the last is refused (`BackendError`)."""
        self._order.check(frame)
        if len(self._pictures) >= self._config.whole_video_frames:
            raise BackendError(
                f"the video has more than {self._config.whole_video_frames} frames; raise "
                "slam3r.whole_video_frames, or stream it with slam3r.whole_video=false"
            )
        self._pictures.append(self._intake.picture(frame))
        self._maker.counts.fed += 1
        return []

    def finish(self) -> list[Event]:
        """Place the whole video. Nothing may follow."""
        if self._order.closed:
            return []
        self._order.closed = True
        pictures, self._pictures = self._pictures, []
        sound = [picture for picture in pictures if picture.fault is Fault.NONE]
        faulty = [picture for picture in pictures if picture.fault is not Fault.NONE]
        if len(sound) < 2:
            alone = [Told(Shot(p, View(0, _NO_TOKENS)), TrackingState.INITIALISING) for p in sound]
            return self._maker.events(Outcome(told=alone), _ONE_SCENE, faulty)
        return self._placed(sound, faulty)

    def close(self) -> None:
        """`feed` may not be called any more; the pictures are let go."""
        self._order.closed = True
        self._pictures = []

    def _placed(self, sound: list[Picture], faulty: list[Picture]) -> list[Event]:
        """The poses of all frames in order; faulty ones take their state from the one before."""
        events: list[Event] = []
        state = TrackingState.LOST
        for outcome in self._outcomes(sound):
            until = outcome.told[0].shot.picture.frame_id if outcome.told else 0
            before = [picture for picture in faulty if picture.frame_id < until]
            faulty = faulty[len(before) :]
            events += self._maker.events(Outcome(), _ONE_SCENE, before, state)
            events += self._maker.events(outcome, _ONE_SCENE)
            state = outcome.told[-1].state if outcome.told else state
        return events + self._maker.events(Outcome(), _ONE_SCENE, faulty, state)

    def _outcomes(self, pictures: list[Picture]) -> Iterator[Outcome]:
        """One outcome for every frame, then the last key frames."""

        def image_of(index: int) -> Float[Tensor, "3 h w"]:
            return normalised(pictures[index].rgb[None], self._device)[0]

        settings = _offline_settings(self._config, len(pictures))
        scene = OfflineScene(self._networks, image_of, len(pictures), settings)
        before = None
        for view in scene.run():
            shot = Shot(pictures[view.index], view)
            read_samples([shot])
            self._judge.learn_focal(shot)
            believed = self._judge.believes(shot, after=before)
            before = shot.placement if believed else None
            state = TrackingState.TRACKED if believed else TrackingState.LOST
            if believed:
                self._settling[view.index] = shot
            yield Outcome([Told(shot, state)], self._new_keyframes(scene, view.index))
        yield Outcome(keyframes=self._new_keyframes(scene, len(pictures)))

    def _new_keyframes(self, scene: OfflineScene, newest: int) -> list[Shot]:
        """Key frames up to frame `newest` not told yet; shots that can be none are let go."""
        shots = []
        while self._told_keyframes < len(scene.keyframes):
            index = scene.keyframes[self._told_keyframes]
            if index > newest:
                break
            self._told_keyframes += 1
            if index in self._settling:
                shots.append(self._settling[index])
        self._settling = {i: s for i, s in self._settling.items() if i >= scene.settled}
        return shots


def _offline_settings(config: Slam3rConfig, count: int) -> OfflineSettings:
    """The settings for a video of `count` frames: a short one leaves no room for long strides."""
    stride = min(config.keyframe_stride, max(1, count // 2))
    return OfflineSettings(
        keyframe_stride=stride,
        stride_min=config.stride_min,
        stride_max=config.stride_max,
        initial_window=config.initial_window,
        initial_confidence=config.initial_confidence,
        window_radius=config.neighbours,
        scene_frames=config.scene_frames + config.neighbours,
        register_together=config.register_together,
        local_confidence=config.local_confidence,
        buffer_frames=config.buffer_frames,
        buffer_strategy=config.buffer_strategy,
        seed=config.seed,
    )
