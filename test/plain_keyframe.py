# SPDX-License-Identifier: Apache-2.0
"""A keyframe that shows nothing in particular, for tests of what happens to keyframes."""

from __future__ import annotations

import numpy as np

from worldsystem_core.frames import Camera
from worldsystem_core.reconstruction import Keyframe, NewKeyframe


def plain_keyframe(number: int, stamp_ns: int = 10**18) -> NewKeyframe:
    """Keyframe `number`, of frame ten times that, of 8 by 6 pixels."""
    return NewKeyframe(
        Keyframe(
            id=number,
            frame_id=10 * number,
            stamp_ns=stamp_ns,
            world_from_cam=np.eye(4),
            camera=Camera(width=8, height=6, fx=8.0, fy=8.0, cx=3.5, cy=2.5),
            pointmap=np.ones((6, 8, 3), np.float32),
            confidence=np.ones((6, 8), np.float32),
            rgb=np.zeros((6, 8, 3), np.uint8),
        )
    )
