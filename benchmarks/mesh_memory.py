# SPDX-License-Identifier: Apache-2.0
"""A flight over more ground than fits in memory, with paging and without: the same map."""

from __future__ import annotations

import time
import zlib
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64
from mesh_room import CAMERA, keyframe

from worldsystem_core.geometry.se3 import look_at
from worldsystem_core.reconstruction import Keyframe
from worldsystem_mesh.config import MeshConfig
from worldsystem_mesh.mesher import Mesher

HEIGHT_M = 3.0
STRIDE_M = 2.2
LANE_KEYFRAMES = 20
VOXEL_M = 0.01


@dataclass(frozen=True)
class MemoryResult:
    """Both runs touched the same `blocks`; `peak_mb` is of the run with the budget."""

    blocks: int
    peak_mb: float
    disk_mb: float
    paged_out: int
    paged_in: int
    is_equal: bool
    slowdown: float


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
    base = MeshConfig(voxel=VOXEL_M, device="cpu", min_weight=0.5, store_mb=64, page_dir=page_dir)
    small = Mesher(replace(base, memory_mb=budget_mb))
    count, peak, small_s = 0, 0, 0.0
    while small.stats()["blocks"] < blocks:
        small_s += _fly(small, count)
        peak = max(peak, small.stats()["memory_bytes"] - small.views.bytes)
        count += 1
    roomy = Mesher(replace(base, memory_mb=16_000))
    roomy_s = sum(_fly(roomy, number) for number in range(count))
    stats = small.stats()
    result = MemoryResult(
        blocks=stats["blocks"],
        peak_mb=peak / 1e6,
        disk_mb=stats["disk_bytes"] / 1e6,
        paged_out=stats["paged_out_blocks"],
        paged_in=stats["paged_in_blocks"],
        is_equal=_digest(small) == _digest(roomy),
        slowdown=small_s / roomy_s,
    )
    small.close()
    roomy.close()
    return result


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
