# SPDX-License-Identifier: Apache-2.0
"""A flight over more ground than fits in memory, with paging and without: the same map."""

from __future__ import annotations

import gc
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from jaxtyping import Float64
from mesh_room import CAMERA, keyframe

from worldsystem_core.freed_memory import EVERY_S, hand_back_freed_memory, keep_freed_memory
from worldsystem_core.geometry.se3 import look_at
from worldsystem_core.reconstruction import Keyframe
from worldsystem_mesh.config import MeshConfig
from worldsystem_mesh.mesher import Mesher
from worldsystem_mesh.mesher_state import MeshStats

HEIGHT_M = 3.0
STRIDE_M = 2.2
LANE_KEYFRAMES = 20
VOXEL_M = 0.01
STORE_MB = 64
"""Keyframes kept to be fused again have a budget of their own."""
LOOK_S = 0.02


@dataclass(frozen=True)
class MemoryResult:
    """Both runs touched the same `blocks`. Of the run with the budget: `peak_mb` is by the mesher's
    own account between updates, `resident_mb` what its process grew by at most, without the pages
    of files, looked at all the time."""

    blocks: int
    peak_mb: float
    resident_mb: float
    disk_mb: float
    paged_out: int
    paged_in: int
    is_equal: bool
    slowdown: float


@dataclass(frozen=True)
class _Flight:
    """One run over the ground."""

    keyframes: int
    stats: MeshStats
    digest: tuple[int, int]
    seconds: float
    peak_mb: float
    resident_mb: float


def ground(
    x: Float64[np.ndarray, "h w"], y: Float64[np.ndarray, "h w"]
) -> Float64[np.ndarray, "h w"]:
    """Height of a hilly ground [m]."""
    return np.asarray(0.15 * np.sin(1.3 * x) * np.cos(0.9 * y))


def view_of_ground(number: int) -> Keyframe:
    """A keyframe that looks down from lane after lane; every fifth comes back to the start."""
    at = number if number % 5 else number // 5
    lane, along = divmod(at, LANE_KEYFRAMES)
    eye = np.array([STRIDE_M * along, STRIDE_M * lane, HEIGHT_M])
    pose = look_at(eye, eye - [0.0, 0.0, 1.0], np.array([0.0, 1.0, 0.0]))
    v, u = np.mgrid[0 : CAMERA.height, 0 : CAMERA.width]
    rays = np.stack(
        [(u - CAMERA.cx) / CAMERA.fx, (v - CAMERA.cy) / CAMERA.fy, np.ones(u.shape)], -1
    )
    in_world = rays @ pose[:3, :3].T
    depth = np.full(u.shape, HEIGHT_M)
    for _ in range(6):
        place = eye + in_world * depth[..., None]
        depth = (HEIGHT_M - ground(place[..., 0], place[..., 1])) / -in_world[..., 2]
    rgb = np.stack([u % 256, v % 256, np.full(u.shape, number % 256)], axis=-1).astype(np.uint8)
    return keyframe(number, pose, depth.astype(np.float32), rgb)


def over_budget(blocks: int, budget_mb: int, page_dir: str) -> MemoryResult:
    """Touch at least `blocks` blocks under `budget_mb`, and again with all the memory it wants."""
    base = MeshConfig(
        voxel=VOXEL_M, device="cpu", min_weight=0.5, store_mb=STORE_MB, page_dir=page_dir
    )
    small = _alone(replace(base, memory_mb=budget_mb), blocks, 0)
    roomy = _alone(replace(base, memory_mb=16_000), 0, small.keyframes)
    return MemoryResult(
        blocks=small.stats["blocks"],
        peak_mb=small.peak_mb,
        resident_mb=small.resident_mb,
        disk_mb=small.stats["disk_bytes"] / 1e6,
        paged_out=small.stats["paged_out_blocks"],
        paged_in=small.stats["paged_in_blocks"],
        is_equal=small.digest == roomy.digest,
        slowdown=small.seconds / roomy.seconds,
    )


def _alone(config: MeshConfig, blocks: int, keyframes: int) -> _Flight:
    """In a process of its own, whose memory is nobody else's."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(_flown, config, blocks, keyframes).result()


def _flown(config: MeshConfig, blocks: int, keyframes: int) -> _Flight:
    """Until so many blocks are touched and so many keyframes fused."""
    keep_freed_memory()
    hand_back_freed_memory()
    warmed = Mesher(config)
    _fly(warmed, 0)
    warmed.close()
    del warmed
    gc.collect()
    time.sleep(2 * EVERY_S)  # what the warm-up freed has gone back: it is not held already
    with _watched() as held_mb:
        mesher, count, peak, seconds = Mesher(config), 0, 0, 0.0
        while count < keyframes or mesher.stats()["blocks"] < blocks:
            seconds += _fly(mesher, count)
            peak = max(peak, mesher.stats()["memory_bytes"] - mesher.views.bytes)
            count += 1
    stats = mesher.stats()
    flight = _Flight(count, stats, _digest(mesher), seconds, peak / 1e6, held_mb[1] - held_mb[0])
    mesher.close()
    return flight


@contextmanager
def _watched() -> Iterator[list[float]]:
    """What this process holds beside pages of files [MB]: now, and at most until the end."""
    held_mb = [_held_mb()] * 2
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(LOOK_S):
            held_mb[1] = max(held_mb[1], _held_mb())

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield held_mb
    finally:
        ended.set()
        looking.join()


def _held_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    status = {key: value.split() for key, _, value in (line.partition(":") for line in lines)}
    return sum(int(status[name][0]) for name in ("RssAnon", "RssShmem", "VmSwap")) * 1024 / 1e6


def _fly(mesher: Mesher, number: int) -> float:
    view = view_of_ground(number)
    start = time.perf_counter()
    mesher.integrate(view)
    mesher.extract(number)
    return time.perf_counter() - start


def _digest(mesher: Mesher) -> tuple[int, int]:
    """Checksums of all voxels and of the whole surface, block after block."""
    volume, surface = mesher.volume, mesher.surface
    assert volume is not None  # keyframes were fused
    voxels = code = 0
    for start in range(0, volume.block_count, 4096):
        blocks = np.arange(start, min(start + 4096, volume.block_count), dtype=np.int32)
        voxels = zlib.crc32(volume.samples(blocks).tobytes(), voxels)
        voxels = zlib.crc32(volume.colours(blocks).tobytes(), voxels)
    ids = surface.all_ids()
    for start in range(0, len(ids), 4096):
        cells = surface.cells(ids[start : start + 4096])
        for column in (cells.edges, cells.shares, cells.colours, cells.cells, cells.cases):
            code = zlib.crc32(np.ascontiguousarray(column).tobytes(), code)
    return voxels, code
