# SPDX-License-Identifier: Apache-2.0
"""Compiles the loops over pixels before the first keyframe needs them.

Numba compiles a loop when it is first called, and keeps it on disk for the next process. A live
video does not wait for that, so `python -m worldsystem_segment.precompile` runs once after
installation, and the first back-end of a process loads what is kept.
"""

from __future__ import annotations

import time
from functools import cache

import numpy as np
from jaxtyping import Float32

from worldsystem_core.frames import Camera
from worldsystem_core.reconstruction import Keyframe, ScaleState
from worldsystem_segment.config import SegmentConfig
from worldsystem_segment.geometric.backend import GeometricBackend

_CAMERA = Camera(width=128, height=96, fx=110.0, fy=110.0, cx=63.5, cy=47.5)


def warm_up() -> float:
    """Show a back-end of its own a box on a floor, before a wall, and then the box no more; the
    seconds it took."""
    start = time.perf_counter()
    backend = GeometricBackend(SegmentConfig())
    for number in range(6):
        backend.feed(_keyframe(number, box=number < 4), ())
    return time.perf_counter() - start


@cache
def warm_up_once() -> None:
    """`warm_up`, but only the first time in this process."""
    warm_up()


def _keyframe(number: int, *, box: bool) -> Keyframe:
    pointmap = _corner(box=box)
    rgb = np.random.default_rng(0).integers(0, 60, (*pointmap.shape[:2], 3), np.uint8)
    if box:
        rgb[40:70, 50:80] += np.array([150, 0, 0], np.uint8)
    confidence = np.ones(pointmap.shape[:2], np.float32)
    return Keyframe(
        id=number, frame_id=number, stamp_ns=number * 500_000_000, rgb=rgb, pointmap=pointmap,
        confidence=confidence, camera=_CAMERA, world_from_cam=np.eye(4), scale=ScaleState.SCENE,
    )  # fmt: skip


def _corner(*, box: bool) -> Float32[np.ndarray, "h w 3"]:
    """A floor below the camera, a wall that ends it, and the front of a box."""
    u, v = np.meshgrid(np.arange(_CAMERA.width), np.arange(_CAMERA.height))
    x, y = (u - _CAMERA.cx) / _CAMERA.fx, (v - _CAMERA.cy) / _CAMERA.fy
    depth = np.minimum(4.0, 1.0 / np.maximum(y, 1e-3))
    if box:
        depth[40:70, 50:80] = np.minimum(depth[40:70, 50:80], 2.4)
    return np.stack([x * depth, y * depth, depth], axis=-1).astype(np.float32)


if __name__ == "__main__":
    print(f"segmentation's loops ready after {warm_up():.1f} s")
