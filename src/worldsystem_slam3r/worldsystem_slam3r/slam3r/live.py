# SPDX-License-Identifier: Apache-2.0
"""The pipeline for a stream: frames are registered as they come, to what was seen before them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from worldsystem_slam3r.slam3r.buffer import SceneBuffer
from worldsystem_slam3r.slam3r.networks import Networks
from worldsystem_slam3r.slam3r.scene_start import SceneStart, level_confidence, place_start
from worldsystem_slam3r.slam3r.views import Steps, View


@dataclass(frozen=True, kw_only=True)
class LiveSettings:
    """Settings of the streaming pipeline; the names follow `Slam3rConfig`.

    `start_together` frames are registered in one call when a scene starts; `stride_max` bounds
    how far back the neighbours of a frame may lie.
    """

    neighbours: int = 3
    scene_frames: int = 7
    retrieve_every: int = 5
    start_together: int = 10
    stride_max: int = 15
    local_confidence: float = 1.5
    buffer_frames: int = 100
    buffer_strategy: str = "reservoir"
    buffer_interval: int = 1
    seed: int = 42


class LiveScene:
    """Scene frames, recent frames and the calls that place new ones among them.

    `register` computes, `accept` remembers: a frame that turns out to be lost is never built on.
    State is bounded by the buffer and by `neighbours` × `stride_max` recent frames. After a cut a
    new scene may be begun; scene frames of the earlier ones stay in the buffer to come back to.
    """

    def __init__(self, networks: Networks, settings: LiveSettings) -> None:
        self._settings = settings
        self.steps = Steps(networks, local_threshold=settings.local_confidence)
        self.buffer = SceneBuffer(
            capacity=settings.buffer_frames,
            strategy=settings.buffer_strategy,
            rng=np.random.RandomState(settings.seed),
            interval=settings.buffer_interval,
        )
        self.stride = 1
        self.segment = 0
        self._scenes_begun = 0
        self.recent: dict[int, View] = {}
        self._retrieved: list[View] = []

    def begin(
        self, keys: Sequence[View], between: Sequence[View], start: SceneStart, stride: int
    ) -> None:
        """Start a scene with its key frames; the frames between them are registered to these."""
        self.segment = self._scenes_begun  # one was resumed that may be older than others
        self._scenes_begun += 1
        self.stride = stride
        self.recent.clear()
        self._retrieved = []
        place_start(keys, start, local_threshold=self.steps.local_threshold)
        for view in keys:
            view.segment = self.segment
        self.steps.find_local_points(between, [keys] * len(between))
        together = self._settings.start_together
        for first in range(0, len(between), together):
            self.steps.register(keys, between[first : first + together])
        # of a window that shrank, those after it are what did not fit
        level_confidence(keys, [view for view in between if view.index < keys[-1].index])
        self.buffer.start(keys, keys[-1].index + stride + 1)
        self._remember([*keys, *between])

    def references(self, views: Sequence[View]) -> list[View]:
        """What the next frames are registered to: scene frames that see the same, and neighbours.

        Retrieval is asked anew at every `retrieve_every`-th frame; neighbours lie whole strides
        before the first of `views`.
        """
        every = self._settings.retrieve_every
        if not self._retrieved or any(view.index % every == 0 for view in views):
            own = [view for view in self.buffer.views if view.segment == self.segment]
            self._retrieved = self.steps.retrieve(own, views[::2], self._settings.scene_frames)
        chosen = list(self._retrieved)
        for j in range(1, self._settings.neighbours + 1):
            neighbour = self._at_or_before(views[0].index - j * self.stride)
            if neighbour is not None and neighbour not in chosen:
                chosen.append(neighbour)
        if not chosen and self.recent:  # the buffer has let go of this scene
            chosen.append(self.recent[max(self.recent)])
        return chosen

    def known_ground(self, view: View) -> list[View]:
        """Scene frames of any scene, all of one, that see what a lost frame sees."""
        found = self.steps.retrieve(self.buffer.views, [view], self._settings.scene_frames)
        return [other for other in found if other.segment == found[0].segment]

    def register(
        self,
        references: Sequence[View],
        views: Sequence[View],
        anchor: Float64[np.ndarray, "4 4"] | None = None,
    ) -> None:
        """Give the views their own points, then their points in the references' scene.

        With `anchor`, a camera's `world_from_cam` near them, the network works in its frame.
        """
        self.steps.find_local_points(views, [references] * len(views))
        self.steps.register(references, views, anchor)

    def accept(self, views: Sequence[View], upcoming: int, *, still: bool = False) -> list[View]:
        """Remember registered frames; return those that became key frames before `upcoming`.

        While the camera is `still` no frame becomes one.
        """
        self._remember(views)
        if still:
            self.buffer.milestone = max(self.buffer.milestone, upcoming)
        chosen = self.buffer.advance(upcoming, self.stride, self.recent)
        reach = self._settings.neighbours * self._settings.stride_max
        oldest = min(upcoming - reach, self.buffer.milestone)
        for index in [i for i in self.recent if i < oldest]:
            del self.recent[index]
        return chosen

    def forget(self, views: Sequence[View]) -> None:
        """Let go of frames of the start whose place is not believed."""
        for view in views:
            self.recent.pop(view.index, None)

    def resume(self, segment: int, upcoming: int) -> None:
        """Go on in scene `segment` after a frame was recognised there."""
        if segment != self.segment:
            self.recent.clear()
        self.segment = segment
        self._retrieved = []
        self.buffer.milestone = upcoming

    def _remember(self, views: Sequence[View]) -> None:
        for view in views:
            self.recent[view.index] = view

    def _at_or_before(self, index: int) -> View | None:
        """The newest remembered frame up to `index`, where not too far before it."""
        reach = range(index, index - self._settings.stride_max - 1, -1)
        return next((self.recent[i] for i in reach if i in self.recent), None)
