# SPDX-License-Identifier: Apache-2.0
"""Recordings with known poses, for slow tests; a test without its recording is skipped."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from worldsystem_core.frames import Camera, Frame

DATA = Path(
    os.environ.get("WORLDSYSTEM_DATA", Path(__file__).parents[2].parent / "shared" / "data")
)
LIVING_ROOM_CAMERA = Camera(width=640, height=480, fx=525, fy=525, cx=319.5, cy=239.5)


def living_room(count: int = 211) -> Iterator[tuple[Frame, np.ndarray]]:
    """The first frames of ICL-NUIM living room 1 with `world_from_cam`."""
    folder = _folder("icl_livingroom1")
    lines = (folder / "trajectory.log").read_text().split("\n")
    for i in range(count):
        rgb = cv2.cvtColor(cv2.imread(str(folder / f"rgb/{i:05d}.jpg")), cv2.COLOR_BGR2RGB)
        rows = lines[5 * i + 1 : 5 * i + 5]
        pose = np.array([[float(x) for x in row.split()] for row in rows])
        frame = Frame(id=i, stamp_ns=i * 33_333_333, rgb=rgb, camera=LIVING_ROOM_CAMERA)
        yield frame, pose


def office() -> Iterator[tuple[Frame, np.ndarray]]:
    """A walk with a HoloLens: 54 pictures, 0.1 m and 3° apart."""
    folder = _folder("hololens_room")
    poses = np.loadtxt(folder / "poses.txt").reshape(-1, 4, 4)
    K = np.loadtxt(folder / "K.txt")
    for i, path in enumerate(sorted((folder / "rgb").glob("*.png"))):
        rgb = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        camera = Camera.from_K(K, rgb.shape[1], rgb.shape[0])
        yield Frame(id=i, stamp_ns=i * 200_000_000, rgb=rgb, camera=camera), poses[i]


def _folder(name: str) -> Path:
    if not (DATA / name).exists():
        pytest.skip(f"no recording at {DATA / name}; set WORLDSYSTEM_DATA")
    return DATA / name
