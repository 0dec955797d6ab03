# SPDX-License-Identifier: Apache-2.0
"""What changed in the world of splats, as it travels; and a client's copy of that world."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from jaxtyping import UInt32

from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_core.reconstruction import ScaleState
from worldsystem_core.splats.gaussians import Gaussians


class SplatOperation(Enum):
    """What is done to a chunk."""

    PUT = 0
    REMOVE = 1
    POSE = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class SplatDelta:
    """A change to one chunk: the splats that hang on keyframe `chunk`, packed, in its frame.

    `words` is empty but for a PUT. `sequence` counts up from 1; number 1 begins anew, and what was
    told before it is void. `total` is how many splats the world holds after it.
    """

    stamp_ns: int
    sequence: int
    chunk: int
    operation: SplatOperation
    world_from_chunk: Sim3
    words: UInt32[np.ndarray, "n 4"]
    total: int
    scale: ScaleState = ScaleState.SCENE

    def __post_init__(self) -> None:
        self.words.flags.writeable = False


@dataclass
class SplatAssembly:
    """A client's copy of the world of splats, kept current by deltas; no stage keeps one."""

    words: dict[int, UInt32[np.ndarray, "n 4"]] = field(default_factory=dict)
    world_from_chunk: dict[int, Sim3] = field(default_factory=dict)
    sequence: int = 0
    missed: int = 0

    def apply(self, delta: SplatDelta) -> None:
        """Take a change; deltas that never came are counted in `missed`."""
        if delta.sequence == 1:
            self.words.clear()
            self.world_from_chunk.clear()
            self.sequence = 0
        self.missed += max(0, delta.sequence - self.sequence - 1)
        self.sequence = max(self.sequence, delta.sequence)
        if delta.operation is SplatOperation.REMOVE:
            self.words.pop(delta.chunk, None)
            self.world_from_chunk.pop(delta.chunk, None)
            return
        if delta.operation is SplatOperation.PUT:
            self.words[delta.chunk] = delta.words
        if delta.chunk in self.words:
            self.world_from_chunk[delta.chunk] = delta.world_from_chunk

    def gaussians(self) -> Gaussians:
        """All splats in the world frame."""
        # Imported here: its compiler takes half a second, and every stage knows this message.
        from worldsystem_core.splats.packed import unpack

        return Gaussians.joined(
            [
                unpack(words).transformed(self.world_from_chunk[chunk])
                for chunk, words in self.words.items()
            ]
        )
