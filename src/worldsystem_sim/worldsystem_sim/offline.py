# SPDX-License-Identifier: Apache-2.0
"""A simulated flight without a network: decoded pictures with their true poses, depth and ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import av
import numpy as np
from jaxtyping import Float32, Float64, UInt16

from worldsystem_core.frames import Frame
from worldsystem_sim.cache import Progress, access_units
from worldsystem_sim.config import SimConfig
from worldsystem_sim.flight import flight
from worldsystem_sim.render import Renderer
from worldsystem_sim.scene import build_scene

EPOCH_NS = 1_700_000_000_000_000_000


@dataclass(frozen=True, eq=False)
class View:
    """The truth of one frame: z-depth [m] (inf: sky), instance ids (0: sky), pose in `map`."""

    frame_number: int
    depth_m: Float32[np.ndarray, "h w"]
    ids: UInt16[np.ndarray, "h w"]
    world_from_cam: Float64[np.ndarray, "4 4"]


def stamp_ns(config: SimConfig, frame_number: int, start_ns: int = EPOCH_NS) -> int:
    """Capture time of a frame of a flight that begins at `start_ns`."""
    return start_ns + round(frame_number * 1e9 / config.fps)


def frames(
    config: SimConfig, progress: Progress | None = None
) -> Iterator[tuple[Frame, Float64[np.ndarray, "4 4"]]]:
    """The flight's pictures, decoded from the H.264 that would be sent, with `world_from_cam`.

    Exposure swings are in the pictures; the link's faults are not.
    """
    path = flight(config.flight, config.seed, config.duration_s, build_scene(config.seed))
    decoder = av.CodecContext.create("h264", "r")
    number = 0
    for unit in access_units(config, progress):
        for picture in decoder.decode(av.Packet(unit.annex_b)):
            yield _frame(config, number, picture), path.world_from_cam(number / config.fps)
            number += 1
    for picture in decoder.decode(None):
        yield _frame(config, number, picture), path.world_from_cam(number / config.fps)
        number += 1


def _frame(config: SimConfig, number: int, picture: av.VideoFrame) -> Frame:
    return Frame(
        id=number,
        stamp_ns=stamp_ns(config, number),
        rgb=picture.to_ndarray(format="rgb24"),
        camera=config.camera,
    )


def views(config: SimConfig, frame_numbers: Iterable[int] | None = None) -> Iterator[View]:
    """Exact depth and ids of the chosen frames (default: all)."""
    scene = build_scene(config.seed)
    path = flight(config.flight, config.seed, config.duration_s, scene)
    renderer = Renderer(scene, config.camera)
    for number in range(config.frame_count) if frame_numbers is None else frame_numbers:
        pose = path.world_from_cam(number / config.fps)
        depth_m, ids = renderer.render_truth(pose)
        yield View(number, depth_m, ids, pose)
