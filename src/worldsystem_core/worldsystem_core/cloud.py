# SPDX-License-Identifier: Apache-2.0
"""A cloud of coloured points in the world, as it is published."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8

from worldsystem_core.reconstruction import ScaleState


@dataclass(frozen=True, eq=False)
class PointCloud:
    """n coloured points in the world [world units], as they stood at `stamp_ns`."""

    stamp_ns: int
    points: Float32[np.ndarray, "n 3"]
    rgb: UInt8[np.ndarray, "n 3"]
    scale: ScaleState = ScaleState.SCENE

    def __post_init__(self) -> None:
        for array in (self.points, self.rgb):
            array.flags.writeable = False

    def __len__(self) -> int:
        return len(self.points)
