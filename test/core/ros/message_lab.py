# SPDX-License-Identifier: Apache-2.0
"""A time and poses for messages."""

from __future__ import annotations

import numpy as np

STAMP = 1_700_000_000_123_456_789


def some_pose(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    pose = np.eye(4)
    pose[:3, :3] = q * np.sign(np.linalg.det(q))
    pose[:3, 3] = rng.normal(size=3)
    return pose
