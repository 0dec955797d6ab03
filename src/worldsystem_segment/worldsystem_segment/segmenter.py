# SPDX-License-Identifier: Apache-2.0
"""The stage without ROS: keyframes in, tracks per keyframe and objects of the map out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from worldsystem_core.errors import PromptError
from worldsystem_core.objects import MapObjects, TrackFrame
from worldsystem_core.reconstruction import Keyframe, ScaleState
from worldsystem_segment.backend import create_backend
from worldsystem_segment.config import SegmentConfig
from worldsystem_segment.objects.object_file import load_objects, save_objects
from worldsystem_segment.prompt import Phrase, PromptAnswer
from worldsystem_segment.query import Answer, query


class Segmenter:
    """Finds and names the objects of keyframes; ids live in the map and survive leaving the view.

    Not thread-safe: one thread feeds, moves, removes and asks.
    """

    def __init__(self, config: SegmentConfig | None = None) -> None:
        """Build the back-end; raises BackendError for an unknown one."""
        self.config = config or SegmentConfig()
        self._backend = create_backend(self.config.backend, self.config)
        self._phrases: tuple[Phrase, ...] = ()
        self._camera_at: Float64[np.ndarray, "3"] | None = None
        self.set_prompt(self.config.prompt)

    def feed(self, keyframe: Keyframe) -> TrackFrame:
        """Track the objects of `keyframe`; a keyframe without usable points has no tracks."""
        self._camera_at = keyframe.world_from_cam[:3, 3].copy()
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

    def query(
        self, text: str, near: Float64[np.ndarray, "3"] | None = None, limit: int = 0
    ) -> Answer:
        """The objects of the whole map that `text` asks for, whatever the prompt; see `query`.

        Distances are from `near`, or from the newest keyframe's camera [world units].
        """
        place = self._camera_at if near is None else near
        return query(self._backend.objects(0, ()).objects, text, place, limit)

    def save(self, folder: Path) -> int:
        """Save the objects beside a map in `folder`; returns how many, raises `MapError`."""
        return save_objects(self._backend.map, folder)

    def load(self, folder: Path) -> int:
        """Go on with the objects saved in `folder`; returns how many, raises `MapError`."""
        return load_objects(self._backend.map, folder)

    def close(self) -> None:
        """End what runs by itself."""
        self._backend.close()

    def set_prompt(self, text: str, thresholds: Sequence[float] = ()) -> PromptAnswer:
        """Report only what the understood phrases of `text` ask for; an empty text reports all.

        When every phrase is refused the prompt before it stays in force. `thresholds` are the least
        scores of the phrases, instead of those in the text (`red box @0.4`); a `PromptError` when
        there are not as many as phrases, or when one lies outside [0, 1].
        """
        answer = self._backend.understand(text)
        if thresholds:
            answer = _with(answer, thresholds)
        if answer.phrases or not answer.refused:
            self._phrases = answer.phrases
        return answer

    def counters(self) -> dict[str, int]:
        """Tracks, voxels and keyframes let go since the start, by reason."""
        return self._backend.counters()


def _with(answer: PromptAnswer, thresholds: Sequence[float]) -> PromptAnswer:
    if len(thresholds) != len(answer.phrases):
        raise PromptError(
            f"{len(thresholds)} thresholds for {len(answer.phrases)} understood phrases "
            f"({', '.join(answer.understood)}); give one for each, or none"
        )
    if not all(0.0 <= threshold <= 1.0 for threshold in thresholds):
        raise PromptError(f"thresholds {list(thresholds)} must lie in [0, 1]")
    return answer.with_thresholds(thresholds)
