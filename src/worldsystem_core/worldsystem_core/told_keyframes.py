# SPDX-License-Identifier: Apache-2.0
"""Which keyframes a stage was told: all are told again when another stage has begun anew."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from worldsystem_core.reconstruction import (
    Keyframe,
    MovedKeyframes,
    NewKeyframe,
    RemovedKeyframes,
)

TOLD_AGAIN = "told_again"
"""Why a keyframe goes that the stage has: it is where it was."""
_SAME_PLACE = 1e-6


class ToldKeyframes:
    """Remembers the frame and the pose of each keyframe; a reconstruction that died may give a
    number again to another frame."""

    def __init__(self) -> None:
        self._frames: dict[int, int] = {}
        self._poses: dict[int, Float64[np.ndarray, "4 4"]] = {}

    def knows(self, keyframe: Keyframe) -> bool:
        """Whether this very keyframe was told before, wherever it lay."""
        return self._frames.get(keyframe.id) == keyframe.frame_id

    def lies_there(self, keyframe: Keyframe) -> bool:
        """Whether it was told before and lies where it lay: nothing is new."""
        return self.knows(keyframe) and np.allclose(
            self._poses[keyframe.id], keyframe.world_from_cam, atol=_SAME_PLACE
        )

    def note(self, event: NewKeyframe | MovedKeyframes | RemovedKeyframes) -> None:
        """Remember what an event tells."""
        if isinstance(event, NewKeyframe):
            keyframe = event.keyframe
            self._frames[keyframe.id] = keyframe.frame_id
            self._poses[keyframe.id] = keyframe.world_from_cam
        elif isinstance(event, MovedKeyframes):
            moved = event.world_from_cam.items()
            self._poses.update({known: pose for known, pose in moved if known in self._frames})
        else:
            for gone in event.ids:
                self._frames.pop(gone, None)
                self._poses.pop(gone, None)
