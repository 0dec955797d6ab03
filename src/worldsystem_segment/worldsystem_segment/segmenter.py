# SPDX-License-Identifier: Apache-2.0
"""The stage without ROS: keyframes in, tracks per keyframe and objects of the map out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from worldsystem_core.objects import MapObjects, TrackFrame
from worldsystem_core.reconstruction import Keyframe, ScaleState
from worldsystem_segment.backend import create_backend
from worldsystem_segment.config import SegmentConfig
from worldsystem_segment.prompt import Phrase, PromptAnswer, parse_prompt


class Segmenter:
    """Finds and names the objects of keyframes; ids live in the map and survive leaving the view.

    Not thread-safe: one thread feeds, moves, removes and asks.
    """

    def __init__(self, config: SegmentConfig | None = None) -> None:
        """Build the back-end; raises BackendError for an unknown one."""
        self.config = config or SegmentConfig()
        self._backend = create_backend(self.config.backend, self.config)
        self._phrases: tuple[Phrase, ...] = ()
        self.set_prompt(self.config.prompt)

    def feed(self, keyframe: Keyframe) -> TrackFrame:
        """Track the objects of `keyframe`; a keyframe without usable points has no tracks."""
        return self._backend.feed(keyframe, self._phrases)

    def move(
        self,
        world_from_cam: dict[int, Float64[np.ndarray, "4 4"]],
        point_scale: dict[int, float] | None = None,
        scale: ScaleState | None = None,
    ) -> None:
        """Follow corrected poses (`MovedKeyframes`); unknown ids are ignored.

        Each voxel of a track hangs on the keyframe that saw it first, moves rigidly with it and
        grows with its points.
        """
        self._backend.move(world_from_cam, point_scale, scale)

    def remove(self, ids: Sequence[int]) -> None:
        """Forget what hangs on these keyframes (`RemovedKeyframes`); empty tracks disappear."""
        self._backend.remove(ids)

    def objects(self, stamp_ns: int) -> MapObjects:
        """Every confirmed object that the prompt selects, with its oriented box [world units]."""
        return self._backend.objects(stamp_ns, self._phrases)

    def set_prompt(self, text: str) -> PromptAnswer:
        """Report only what the understood phrases of `text` ask for; an empty text reports all.

        When every phrase is refused the prompt before it stays in force.
        """
        answer = parse_prompt(text)
        if answer.phrases or not answer.refused:
            self._phrases = answer.phrases
        return answer

    def counters(self) -> dict[str, int]:
        """Tracks, voxels and keyframes let go since the start, by reason."""
        return self._backend.counters()
