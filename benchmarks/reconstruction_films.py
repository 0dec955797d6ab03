# SPDX-License-Identifier: Apache-2.0
"""The films that reconstruction is measured on: simulated flights and recordings, with their truth.

Recordings are looked for in `WORLDSYSTEM_DATA`, else in `../shared/data`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
from harness import QUICK

from worldsystem_core.frames import Camera, Frame
from worldsystem_sim.config import SimConfig

DATA = Path(
    os.environ.get("WORLDSYSTEM_DATA", Path(__file__).parents[1].parent / "shared" / "data")
)
FLIGHTS = ("demo", "orbit", "survey", "facade", "flythrough")
HARD_FLIGHT = "yaw"
"""Turns up to 90 °/s from the first picture on: hard to start, told beside the others."""
SEEDS = (1, 2)
FLIGHT_S = 15.0
GOPRO_PERIOD_NS = 33_366_667

Posed = Iterator[tuple[Frame, np.ndarray]]


def flights() -> list[SimConfig]:
    """Five flights over each of two scenes; the default one over one scene when quick."""
    if QUICK:
        return [SimConfig(duration_s=FLIGHT_S)]
    return [
        SimConfig(flight=flight, seed=seed, duration_s=FLIGHT_S)
        for flight in FLIGHTS
        for seed in SEEDS
    ]


def hard_flights() -> list[SimConfig]:
    """The flight of quick turns over both scenes; none when quick."""
    if QUICK:
        return []
    return [SimConfig(flight=HARD_FLIGHT, seed=seed, duration_s=FLIGHT_S) for seed in SEEDS]


def living_room() -> Posed:
    """ICL-NUIM living room 1, 211 rendered frames."""
    folder = DATA / "icl_livingroom1"
    camera = Camera(width=640, height=480, fx=525, fy=525, cx=319.5, cy=239.5)
    for i, pose in enumerate(living_room_poses()):
        rgb = cv2.cvtColor(cv2.imread(str(folder / f"rgb/{i:05d}.jpg")), cv2.COLOR_BGR2RGB)
        yield Frame(id=i, stamp_ns=i * 33_333_333, rgb=np.asarray(rgb), camera=camera), pose


def living_room_poses() -> np.ndarray:
    """`world_from_cam` of its frames."""
    lines = (DATA / "icl_livingroom1" / "trajectory.log").read_text().splitlines()
    rows = [line for at, line in enumerate(lines) if at % 5 and line.strip()]
    return np.array([row.split() for row in rows], np.float64).reshape(-1, 4, 4)


def hololens() -> Posed:
    """A walk through an office with 0.1 m and 3° between frames."""
    folder = DATA / "hololens_room"
    poses = np.loadtxt(folder / "poses.txt").reshape(-1, 4, 4)
    K = np.loadtxt(folder / "K.txt")
    for i, path in enumerate(sorted((folder / "rgb").glob("*.png"))):
        rgb = np.asarray(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB))
        camera = Camera.from_K(K, rgb.shape[1], rgb.shape[0])
        yield Frame(id=i, stamp_ns=i * 200_000_000, rgb=rgb, camera=camera), poses[i]


def karma() -> Posed:
    """A drone along a cliff; the camera is not known, nor its poses."""
    return _video(DATA / "gopro_karma_drone" / "karma.mp4")


def hero7() -> Posed:
    """A walk along a building; the camera is not known, nor its poses."""
    return _video(DATA / "gopro_hero7_walk" / "hero7.mp4")


def _video(path: Path) -> Posed:
    with av.open(str(path)) as container:
        for i, picture in enumerate(container.decode(video=0)):
            rgb = picture.to_ndarray(format="rgb24")
            yield Frame(id=i, stamp_ns=i * GOPRO_PERIOD_NS, rgb=rgb), np.eye(4)


def camera_withheld(film: Posed) -> Posed:
    """The same film of a camera that nobody knows."""
    for frame, pose in film:
        yield replace(frame, camera=None), pose


def begun_late(film: Posed, frames: int) -> Posed:
    """The film without its first frames: a repeat that is not the same run again."""
    for at, item in enumerate(film):
        if at >= frames:
            yield item


def forth_and_back(film: list[tuple[Frame, np.ndarray]], laps: int) -> Posed:
    """A film, then the same backwards, so many times: equal work in every lap."""
    lap = [*film, *film[::-1]]
    period_ns = film[1][0].stamp_ns - film[0][0].stamp_ns
    for number in range(laps * len(lap)):
        frame, pose = lap[number % len(lap)]
        yield replace(frame, id=number, stamp_ns=number * period_ns), pose
