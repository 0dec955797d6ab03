# SPDX-License-Identifier: Apache-2.0
"""The contract of a segmentation back-end, and the registry that makes one by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Float64

from worldsystem_core.errors import BackendError
from worldsystem_core.objects import MapObjects, TrackFrame
from worldsystem_core.reconstruction import Keyframe, ScaleState, Successor
from worldsystem_segment.config import SegmentConfig
from worldsystem_segment.objects.object_map import Named, ObjectMap
from worldsystem_segment.objects.world_track import WorldTrack
from worldsystem_segment.prompt import Phrase, PromptAnswer


class SegmentBackend(Protocol):
    """Finds objects in keyframes and remembers them in the map."""

    map: ObjectMap

    @property
    def problem(self) -> str:
        """What it cannot do any more, in words; empty while all is well."""
        ...

    def understand(self, text: str) -> PromptAnswer:
        """Which phrases of `text` this back-end can look for, and which it refuses."""
        ...

    def feed(self, keyframe: Keyframe, phrases: Sequence[Phrase]) -> TrackFrame:
        """Track the objects of `keyframe`; report those that a phrase selects (none = all)."""
        ...

    def move(
        self,
        world_from_cam: dict[int, Float64[np.ndarray, "4 4"]],
        point_scale: dict[int, float] | None = None,
        scale: ScaleState | None = None,
    ) -> None:
        """Let what the named keyframes saw follow their new poses and sizes."""
        ...

    def remove(self, ids: Sequence[int], successors: Mapping[int, Successor]) -> None:
        """Forget what only the named keyframes saw, or hang it on those that stand in for them."""
        ...

    def objects(self, stamp_ns: int, phrases: Sequence[Phrase]) -> MapObjects:
        """Confirmed objects of the map that a phrase selects."""
        ...

    def name(self, track: WorldTrack, phrases: Sequence[Phrase]) -> Named | None:
        """What an object is called; None when no phrase selects it."""
        ...

    def ids_changed(self) -> None:
        """From now on the map's ids are those of other things."""
        ...

    def close(self) -> None:
        """End what runs by itself; waits for it."""
        ...

    def counters(self) -> dict[str, int]:
        """What was let go and why, since the start."""
        ...


def _geometric(config: SegmentConfig) -> SegmentBackend:
    from worldsystem_segment.geometric.backend import GeometricBackend

    return GeometricBackend(config)


def _grounded_sam2(config: SegmentConfig) -> SegmentBackend:
    from worldsystem_segment.learned.loading import grounded_sam2

    return grounded_sam2(config)


def _sam3(config: SegmentConfig) -> SegmentBackend:
    from worldsystem_segment.learned.loading import sam3

    return sam3(config)


BACKENDS: dict[str, Callable[[SegmentConfig], SegmentBackend]] = {
    "geometric": _geometric,
    "grounded_sam2": _grounded_sam2,
    "sam3": _sam3,
}


def create_backend(name: str, config: SegmentConfig) -> SegmentBackend:
    """Make the back-end called `name`; raises BackendError listing the known names.

    The first one of a process loads the compiled loops over pixels, which takes half a second, or
    some 20 s where they were never compiled (`python -m worldsystem_segment.precompile` does that).
    """
    from worldsystem_segment.precompile import warm_up_once

    if name not in BACKENDS:
        raise BackendError(f"unknown segmentation back-end '{name}'; known: {sorted(BACKENDS)}")
    warm_up_once()
    return BACKENDS[name](config)
