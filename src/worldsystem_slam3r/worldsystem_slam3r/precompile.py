# SPDX-License-Identifier: Apache-2.0
"""Compiles the back-end's kernels before the first picture needs them.

Numba compiles a kernel when it is first called, and keeps it on disk for the next process. A live
video does not wait for that, so `python -m worldsystem_slam3r.precompile` runs once after
installation, and every back-end loads the kept kernels as it is made.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from functools import cache

import cv2
import numpy as np
from jaxtyping import Float32, Float64, UInt8

from worldsystem_core.errors import BackendError
from worldsystem_core.frames import Camera, Frame
from worldsystem_core.geometry.se3 import look_at
from worldsystem_core.reconstruction import NewKeyframe
from worldsystem_slam3r.config import Slam3rConfig
from worldsystem_slam3r.geometric.system import GeometricBackend
from worldsystem_slam3r.graph.postings import LEAST_ROOM, Postings

log = logging.getLogger(__name__)

FRAMES = 24
PERIOD_NS = 33_333_333
STEP = 0.12
TEXELS_PER_UNIT = 16.0
DEPTHS_WANTED = 3
"""A keyframe is judged by the sweep of the one after it, so the third has seen every kernel."""

PLANES = np.array([[0.0, 1.0, 0.0], [0.15, 0.0, 0.2], [-0.2, 0.0, 0.15]])
MIXED = np.array([[1.0, 0.3, 0.2], [-0.2, 0.8, 0.7]])
"""Texture coordinates of a point: neither is constant on any of the planes."""

_CAMERA = Camera(width=256, height=144, fx=230.0, fy=230.0, cx=127.5, cy=71.5)


def warm_up() -> float:
    """Push a small made-up film through the back-end until it gave dense keyframes.

    Returns the seconds it took. A `BackendError` says that no depth came out, so that kernels may
    still be uncompiled.
    """
    start = time.perf_counter()
    backend = GeometricBackend(Slam3rConfig(synchronous=True, depth_planes=16, depth_neighbours=2))
    depths = 0
    for frame in _film():
        depths += sum(isinstance(event, NewKeyframe) for event in backend.feed(frame))
        if depths >= DEPTHS_WANTED:
            break
    depths += sum(isinstance(event, NewKeyframe) for event in backend.finish())
    _hold_a_word()
    if depths < DEPTHS_WANTED:
        raise BackendError(f"the warm-up film gave {depths} dense keyframes, not {DEPTHS_WANTED}")
    return time.perf_counter() - start


def _hold_a_word() -> None:
    """The index of places, in which the graph above every back-end looks."""
    postings, words = Postings(1, 2), np.ones((1, 1), np.int64)
    for row in range(2 * LEAST_ROOM):  # until the lists were packed
        postings.add(row, words)
    postings.votes(words, 1 + row)
    postings.remove(row, words)


@cache
def warm_up_once() -> None:
    """`warm_up` on the first call of this process, nothing on later ones; a failure is logged."""
    try:
        log.info("kernels of the geometric back-end ready after %.1f s", warm_up())
    except BackendError as failure:
        log.warning("the first keyframes will wait for kernels to compile: %s", failure)


def _film() -> Iterator[Frame]:
    texture = _texture()
    for i in range(FRAMES):
        eye = np.array([STEP * i, 0.05 * np.sin(0.3 * i), 0.3 * STEP * i])
        world_from_cam = look_at(
            eye, np.array([0.4 * eye[0], 0.3, 4.0]), np.array([0.0, -1.0, 0.0])
        )
        rgb = _picture(texture, world_from_cam)
        yield Frame(id=i, stamp_ns=i * PERIOD_NS, rgb=rgb, camera=_CAMERA)


def _texture() -> Float32[np.ndarray, "256 256"]:
    noise = np.random.default_rng(1).uniform(0, 1, (256, 256)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 1.0)
    return np.asarray(cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX), np.float32)


def _picture(
    texture: Float32[np.ndarray, "256 256"], world_from_cam: Float64[np.ndarray, "4 4"]
) -> UInt8[np.ndarray, "h w 3"]:
    """The floor and two walls of a corner (`PLANES`: n·x = 1), the nearest one at each pixel."""
    v, u = np.mgrid[: _CAMERA.height, : _CAMERA.width]
    x, y = (u - _CAMERA.cx) / _CAMERA.fx, (v - _CAMERA.cy) / _CAMERA.fy
    directions = np.stack([x, y, np.ones(x.shape)], -1) @ world_from_cam[:3, :3].T
    eye = world_from_cam[:3, 3]
    slope = np.maximum(directions @ PLANES.T, 1e-6)
    reach = ((1.0 - PLANES @ eye) / slope).min(axis=-1)
    points = eye + reach[..., None] * directions
    texel = TEXELS_PER_UNIT * (points @ MIXED.T) % 255
    across, along = np.moveaxis(texel.astype(np.float32), -1, 0)
    grey = cv2.remap(texture, across, along, cv2.INTER_LINEAR)
    return np.repeat(np.asarray(grey)[..., None], 3, axis=-1).clip(0, 255).astype(np.uint8)


def main() -> None:
    """Compile and say how long it took."""
    print(f"kernels of the geometric back-end are ready after {warm_up():.1f} s")


if __name__ == "__main__":
    main()
