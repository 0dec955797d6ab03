# SPDX-License-Identifier: Apache-2.0
"""A flight through a room of twelve objects, one of which drives about; made anew by each seed.

The camera stands on one side of the room, turns away from every object for longer than five
seconds, and comes back over another place. One object stands on another, two touch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from segment_scenes import Caster, Scene, ball, box, cylinder

from worldsystem_core.frames import Camera
from worldsystem_core.reconstruction import Keyframe

CAMERA = Camera.from_horizontal_fov(640, 480, np.deg2rad(65.0))
RATE_HZ = 2.0
DURATION_S = 40.0
OBJECTS = 12
MOVER = 12  # its truth id
COLOURS = (
    (200, 30, 30), (40, 60, 200), (230, 210, 40), (40, 160, 60), (240, 240, 240), (120, 60, 150),
    (230, 120, 30), (60, 60, 60), (200, 90, 130), (110, 75, 40), (60, 180, 190), (180, 20, 90),
)  # fmt: skip
Shot = tuple[Keyframe, np.ndarray]


@dataclass(frozen=True)
class Flight:
    """What a seed makes: where things are, and how the camera and the mover go."""

    seed: int
    noise: float = 0.01
    drift: float = 0.03

    def shots(self, *, step: int = 1, camera: Camera = CAMERA) -> list[Shot]:
        """Every `step`-th keyframe with its true ids; two keyframes a second."""
        random = np.random.default_rng(self.seed)
        places = _places(random)
        offsets = _drift(random, self.drift)
        still = _room(random, places)
        start, end = np.array([-2.6, -0.9]), np.array([2.6, -0.3])
        shots = []
        for k in range(0, int(DURATION_S * RATE_HZ), step):
            time_s = k / RATE_HZ
            place = start + (end - start) * _there_and_back(time_s)
            caster = _with_mover(still, place, camera)
            keyframe, truth = caster.shot(k, *_view(time_s), noise=self.noise, texture=0.15)
            pose = keyframe.world_from_cam.copy()
            pose[:3, 3] += offsets[k]
            shots.append((replace(keyframe, world_from_cam=pose, stamp_ns=_stamp(k)), truth))
        return shots


def _stamp(k: int) -> int:
    return int(k * 1e9 / RATE_HZ)


def _places(random: np.random.Generator) -> np.ndarray:
    """Nine places on the floor at least 1.05 m apart, none where the mover drives."""
    found: list[np.ndarray] = []
    while len(found) < 9:
        spot = random.uniform((-2.9, -2.2), (2.9, 3.2))
        driven = -1.45 < spot[1] < 0.25
        if not driven and all(np.linalg.norm(spot - other) > 1.05 for other in found):
            found.append(spot)
    return np.array(found)


def _room(random: np.random.Generator, places: np.ndarray) -> Scene:
    scene = Scene()
    scene.structure(box((0, 0, -0.05), (8, 8, 0.1)), (150, 140, 130))
    for centre, size in (
        ((0, 4.05, 1.4), (8, 0.1, 2.8)), ((0, -4.05, 1.4), (8, 0.1, 2.8)),
        ((4.05, 0, 1.4), (0.1, 8, 2.8)), ((-4.05, 0, 1.4), (0.1, 8, 2.8)),
    ):  # fmt: skip
        scene.structure(box(centre, size), (205, 200, 190))
    colours = iter(COLOURS)
    for index, (x, y) in enumerate(places):
        colour = next(colours)
        if index == 0:  # one upon another
            scene.put(box((x, y, 0.25), (0.7, 0.6, 0.5), 0.3), colour=colour)
            scene.put(box((x, y, 0.64), (0.3, 0.3, 0.28), 0.8), colour=next(colours))
        elif index == 1:  # two that touch
            scene.put(box((x - 0.2, y, 0.3), (0.4, 0.45, 0.6)), colour=colour)
            scene.put(box((x + 0.22, y, 0.17), (0.44, 0.4, 0.34)), colour=next(colours))
        else:
            scene.put(_thing(random, x, y), colour=colour)
    return scene


def _thing(random: np.random.Generator, x: float, y: float):
    width, height = random.uniform(0.3, 0.55), random.uniform(0.35, 0.8)
    kind = random.integers(3)
    if kind == 0:
        return ball((x, y, 0.5 * width + 0.05), 0.5 * width + 0.05)
    if kind == 1:
        return cylinder((x, y, 0.5 * height), 0.5 * width, height)
    depth = random.uniform(0.3, 0.6)
    return box((x, y, 0.5 * height), (width, depth, height), random.uniform(0, 1.5))


def _with_mover(still: Scene, at: np.ndarray, camera: Camera) -> Caster:
    scene = Scene(list(still.meshes), still.object_count)
    mover = scene.put(box((*at, 0.3), (0.45, 0.45, 0.6), 0.2), colour=COLOURS[MOVER - 1])
    assert mover == MOVER
    return scene.caster(camera)


def _there_and_back(time_s: float) -> float:
    return 0.5 - 0.5 * float(np.cos(2 * np.pi * time_s / 26.0))


def _view(time_s: float) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Eye and target: across the objects, away from them all, back from another place."""
    knots_s = (0.0, 7.0, 12.0, 15.0, 21.0, 24.0, 33.0, 40.0)
    turn_deg = (-25.0, 30.0, 5.0, 178.0, 185.0, 340.0, 385.0, 350.0)
    along = (-0.8, 0.9, 0.3, 0.0, 0.0, -0.3, 0.8, 0.0)
    turn = np.deg2rad(np.interp(time_s, knots_s, turn_deg))
    eye = (float(np.interp(time_s, knots_s, along)), -3.4 + 0.1 * np.sin(time_s), 1.7)
    ahead = (eye[0] + 4 * np.sin(turn), eye[1] + 4 * np.cos(turn), 0.35)
    return eye, ahead


def _drift(random: np.random.Generator, amount: float) -> np.ndarray:
    """A smooth wandering of the camera's place, `amount` long at its worst, one a keyframe."""
    count = int(DURATION_S * RATE_HZ)
    phase, pace = random.uniform(0, 2 * np.pi, 3), random.uniform(0.05, 0.12, 3)
    time_s = np.arange(count)[:, None] / RATE_HZ
    wander = np.sin(phase + pace * time_s * 2 * np.pi) - np.sin(phase)
    return amount * wander / np.linalg.norm(wander, axis=1).max()
