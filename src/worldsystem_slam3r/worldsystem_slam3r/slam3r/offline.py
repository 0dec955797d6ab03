# SPDX-License-Identifier: Apache-2.0
"""The pipeline for a whole video: every frame's own geometry may look ahead.

State is bounded by the stride and the buffer, not by the video: tokens are computed when a window
first needs them, and a registered frame is handed out and let go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from worldsystem_core.errors import BackendError
from worldsystem_slam3r.slam3r.buffer import SceneBuffer
from worldsystem_slam3r.slam3r.networks import Networks
from worldsystem_slam3r.slam3r.scene_start import find_start, level_confidence, place_start
from worldsystem_slam3r.slam3r.stride import stride_of_video, window_around
from worldsystem_slam3r.slam3r.views import Steps, View

_ENCODED_TOGETHER = 10


@dataclass(frozen=True, kw_only=True)
class OfflineSettings:
    """Settings of the whole-video pipeline; the names follow `Slam3rConfig`."""

    keyframe_stride: int = 0
    stride_min: int = 1
    stride_max: int = 20
    initial_window: int = 5
    initial_confidence: float = 5.0
    window_radius: int = 5
    scene_frames: int = 10
    register_together: int = 1
    local_confidence: float = 1.5
    normalise: bool = False
    buffer_frames: int = 100
    buffer_strategy: str = "reservoir"
    buffer_interval: int = 1
    seed: int = 42


class OfflineScene:
    """Registers the frames of a video of `count` frames; `image_of(i)` is frame i in [-1, 1]."""

    def __init__(
        self,
        networks: Networks,
        image_of: Callable[[int], Float[Tensor, "3 h w"]],
        count: int,
        settings: OfflineSettings | None = None,
    ) -> None:
        self._settings = settings or OfflineSettings()
        self._networks = networks
        self._image_of = image_of
        self._count = count
        self._rng = np.random.RandomState(self._settings.seed)
        self._steps = Steps(
            networks,
            local_threshold=self._settings.local_confidence,
            normalise=self._settings.normalise,
        )
        self._views: dict[int, View] = {}
        self._buffer = SceneBuffer(
            capacity=self._settings.buffer_frames,
            strategy=self._settings.buffer_strategy,
            rng=self._rng,
            interval=self._settings.buffer_interval,
        )
        self.stride = 0
        self.keyframes: list[int] = []

    @property
    def settled(self) -> int:
        """Frames before this index are key frames by now, or never will be."""
        return self._buffer.milestone

    def run(self) -> Iterator[View]:
        """Yield every frame once, in order, when it has its world points.

        `BackendError` when the video has fewer than two frames at the key-frame stride.
        """
        self.stride = self._settings.keyframe_stride or self._chosen_stride()
        start = self._start()
        yield from start
        upcoming = start[-1].index + 1
        while upcoming < self._count:
            batch = self._register(upcoming)
            yield from batch
            upcoming += len(batch)
            self._offer(upcoming)

    def _chosen_stride(self) -> int:
        strides = range(self._settings.stride_min, self._settings.stride_max + 1)

        def tokens_of(indices: Sequence[int]) -> Float[Tensor, "v s d"]:
            """Of these alone, and not kept: windows lie anywhere in the video."""
            return self._networks.encode(torch.stack([self._image_of(i) for i in indices]))

        return stride_of_video(self._networks, tokens_of, self._count, self._rng, strides=strides)

    def _start(self) -> list[View]:
        """Initialise the scene; register the frames between its key frames one by one."""
        settings, stride = self._settings, self.stride
        window = min(settings.initial_window, self._count // stride)
        if window < 2:
            raise BackendError(
                f"a video of {self._count} frames has fewer than two at key-frame stride {stride}; "
                "choose a smaller slam3r.keyframe_stride or a longer video"
            )
        tokens = list(self._tokens_of(range(0, window * stride, stride)))
        start = find_start(self._networks, tokens, wanted_score=settings.initial_confidence)
        keys = [self._view(i * stride) for i in range(len(start))]
        place_start(keys, start, local_threshold=settings.local_confidence)
        last = keys[-1].index
        between = [self._view(i) for i in range(last) if i % stride]
        for view in between:
            self._find_local_points([view])
            self._steps.register(keys, [view])
        level_confidence(keys, between)
        self._buffer.start(keys, last + 1)
        self.keyframes = [view.index for view in keys]
        return sorted([*keys, *between], key=lambda view: view.index)

    def _register(self, upcoming: int) -> list[View]:
        end = min(upcoming + self._settings.register_together, self._count)
        batch = [self._view(i) for i in range(upcoming, end)]
        self._find_local_points(batch)
        candidates = self._buffer.views
        references = self._steps.retrieve(candidates, batch[::2], self._settings.scene_frames)
        self._steps.register(references, batch)
        return batch

    def _find_local_points(self, views: Sequence[View]) -> None:
        windows = [
            window_around(view.index, self._settings.window_radius, self.stride, self._count)
            for view in views
        ]
        supporting = [[self._view(i) for i in window[1:]] for window in windows]
        self._steps.find_local_points(views, supporting)

    def _offer(self, upcoming: int) -> None:
        """Offer key frames to the buffer; forget the frames that no later window reaches."""
        chosen = self._buffer.advance(upcoming, self.stride, self._views)
        self.keyframes += [view.index for view in chosen]
        behind = upcoming - self._settings.window_radius * self.stride
        oldest = min(behind, self._buffer.milestone)
        for index in [i for i in self._views if i < oldest]:
            del self._views[index]

    def _view(self, index: int) -> View:
        if index not in self._views:
            self._encode(index)
        return self._views[index]

    def _tokens_of(self, indices: Sequence[int]) -> Float[Tensor, "v s d"]:
        return torch.stack([self._view(i).tokens for i in indices])

    def _encode(self, index: int) -> None:
        """Encode the frame and those that will be needed next."""
        end = min(index + _ENCODED_TOGETHER, self._count)
        missing = [i for i in range(index, end) if i not in self._views]
        tokens = self._networks.encode(torch.stack([self._image_of(i) for i in missing]))
        self._views |= {i: View(i, own) for i, own in zip(missing, tokens, strict=True)}
