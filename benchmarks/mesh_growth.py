# SPDX-License-Identifier: Apache-2.0
"""Whole updates beside Open3D's while a house grows room by room.

Open3D extracts all that there is with every update, so that its cost grows with the house; what an
update of ours costs does not.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from mesh_open3d import Open3DGrid

from worldsystem_core.reconstruction import Keyframe

EXTRACTIONS = 2
LAST_EXTRACTIONS = 5


@dataclass(frozen=True)
class Room:
    """Milliseconds of whole updates with the last keyframes of a room, the same ones in both."""

    theirs_ms: list[float]
    ours_ms: list[float]

    @property
    def ratios(self) -> list[float]:
        return [a / b for a, b in zip(self.theirs_ms, self.ours_ms, strict=True)]

    def __str__(self) -> str:
        theirs, ours = float(np.median(self.theirs_ms)), float(np.median(self.ours_ms))
        return f"{np.median(self.ratios):.1f} ({theirs:.0f} of {ours:.1f} ms)"


def room_by_room(
    keyframes: list[Keyframe], ours_ms: list[float], rooms: int, grid: Open3DGrid
) -> list[Room]:
    """The same keyframes in Open3D, and what both cost at the end of each room.

    `ours_ms` are those of the last keyframes; a warm-up may have been left out before them. Open3D
    extracts at few keyframes, which changes nothing in its volume.
    """
    ends = [len(keyframes) * (room + 1) // rooms for room in range(rooms)]
    skipped = len(keyframes) - len(ours_ms)
    found: list[Room] = []
    theirs: list[float] = []
    ours: list[float] = []
    for i, keyframe in enumerate(keyframes):
        start = time.perf_counter()
        grid.integrate(keyframe)
        end = next(end for end in ends if i < end)
        if i < end - (LAST_EXTRACTIONS if end == ends[-1] else EXTRACTIONS):
            continue
        grid.mesh()
        theirs.append(1e3 * (time.perf_counter() - start))
        ours.append(ours_ms[i - skipped])
        if i == end - 1:
            found.append(Room(theirs, ours))
            theirs, ours = [], []
    return found
