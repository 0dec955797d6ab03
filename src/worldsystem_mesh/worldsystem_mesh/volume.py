# SPDX-License-Identifier: Apache-2.0
"""The sparse volume: blocks of 8³ voxels in a hash, into which views are fused.

Idea of the block hash: Nießner et al., "Real-time 3D Reconstruction at Scale using Voxel
Hashing", ACM TOG 32(6), 2013.
"""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import warp as wp
from jaxtyping import Float64, Int, Int32

from worldsystem_mesh import kernels_volume as kernels
from worldsystem_mesh.config import MeshConfig
from worldsystem_mesh.launcher import Launcher
from worldsystem_mesh.view import StoredView

CONFIDENCE_UNITS = 255
BAND_STRIDE_PX = 2
FREE_SPACE_STRIDE_PX = 8
FIRST_CUDA_CAPACITY = 4096
VOXELS = 512

DeviceView = Any  # an instance of the Warp struct `kernels.View`, which is not a class


class BlockVolume:
    """Integer sums of weighted distance and colour per voxel; see `kernels_volume`.

    Exactness: taking a view out restores every sum bit for bit, unless a voxel's weight had
    reached `max_weight` in between and forgot half.
    """

    def __init__(self, config: MeshConfig, launcher: Launcher, voxel: float) -> None:
        self.voxel = voxel
        self.refused_blocks = 0
        self._config = config
        self._launcher = launcher
        self._stamp = 0
        self.state = kernels.Volume()
        self.state.max_weight = int(config.max_weight * CONFIDENCE_UNITS)
        self.state.counters = self._zeros(4, wp.int32)
        self._resize(min(first_capacity(launcher.device), config.max_blocks))

    @property
    def block_count(self) -> int:
        counted = int(self.state.counters.numpy()[kernels.BLOCK_COUNT])
        return min(counted, int(self.state.capacity))

    @property
    def bytes(self) -> int:
        """Memory that the blocks and the hash take; unused capacity costs none on a CPU."""
        return self.block_count * BLOCK_BYTES + int(self.state.keys.size) * SLOT_BYTES

    def coords(self, blocks: Int[np.ndarray, "b"]) -> Int32[np.ndarray, "b 3"]:
        """Block indices of the given block numbers; copies what it needs on CUDA."""
        return np.asarray(self.state.coords.numpy()[blocks])

    def add(self, view: StoredView) -> StoredView:
        """Fuse `view`; return it with the blocks that it went into."""
        on_device = self._upload(view)
        count = self._touch(on_device, view)
        blocks = self.state.touched.numpy()[:count].copy()  # synchronises on CUDA
        self._fuse(on_device, self.state.touched, count, 1)
        return replace(view, blocks=blocks)

    def take_out(self, view: StoredView) -> None:
        """Undo `add`, in the blocks that it returned."""
        if len(view.blocks):
            blocks = wp.array(view.blocks, dtype=wp.int32, device=self._launcher.device)
            self._fuse(self._upload(view), blocks, len(view.blocks), -1)

    def dirty_blocks(self) -> Int32[np.ndarray, "b"]:
        """Blocks whose surface may have changed since the last call, in ascending order."""
        counters = self.state.counters.numpy()
        count = int(counters[kernels.DIRTY_COUNT])
        blocks = self.state.dirty.numpy()[:count].copy()
        self._set_counters(DIRTY_COUNT=0)
        self.state.is_dirty.zero_()
        return np.asarray(np.sort(blocks))

    def _touch(self, on_device: DeviceView, view: StoredView) -> int:
        """Find the view's blocks, growing the volume until they fit; return their number."""
        while True:
            self._stamp += 1
            self._set_counters(TOUCHED_COUNT=0, LOST_COUNT=0)
            self._walk_rays(kernels.touch_band, on_device, view, BAND_STRIDE_PX)
            if self._config.free_space:
                stride = FREE_SPACE_STRIDE_PX
                self._walk_rays(kernels.touch_free_space, on_device, view, stride)
            blocks, touched, _, lost = (int(n) for n in self.state.counters.numpy())
            if blocks <= self.state.capacity and not lost:
                return touched
            if self.state.capacity >= self._config.max_blocks:
                self.refused_blocks += max(blocks - self.state.capacity, 0) + lost
                self._set_counters(BLOCK_COUNT=min(blocks, self.state.capacity))
                self._rebuild_hash(len(self.state.keys))
                return touched
            self._resize(min(max(2 * self.state.capacity, blocks), self._config.max_blocks))

    def _walk_rays(
        self, kernel: wp.Kernel, on_device: DeviceView, view: StoredView, stride: int
    ) -> None:
        dim = tuple(math.ceil(side / stride) for side in view.depth_voxels.shape)
        self._launcher.whole(kernel, dim, [self.state, on_device, stride, self._stamp])

    def _fuse(self, on_device: DeviceView, blocks: wp.array, count: int, sign: int) -> None:
        inputs = [self.state, on_device, blocks, sign]
        self._launcher.sliced(kernels.fuse_rows, count, inputs, inner=(64,))
        self._launcher.whole(kernels.mark_dirty, count, [self.state, blocks])

    def _upload(self, view: StoredView) -> DeviceView:
        camera, device = view.camera, self._launcher.device
        rotation = view.world_from_cam[:3, :3]
        position: Float64[np.ndarray, "3"] = view.world_from_cam[:3, 3] / self.voxel
        on_device = kernels.View()
        depth = view.depth_voxels.astype(np.float32)
        on_device.depth = wp.array(depth, dtype=wp.float32, device=device)
        on_device.confidence = wp.array(view.confidence, dtype=wp.uint8, device=device)
        on_device.rgb = wp.array(view.rgb, dtype=wp.uint8, device=device)
        on_device.intrinsics = wp.vec4(camera.fx, camera.fy, camera.cx, camera.cy)
        on_device.world_from_cam = wp.mat33(rotation)
        on_device.cam_in_world = wp.vec3(position)
        on_device.cam_from_world = wp.mat33(rotation.T)
        on_device.world_in_cam = wp.vec3(-rotation.T @ position)
        on_device.truncation = self._config.truncation_voxels
        on_device.depth_noise = self._config.depth_noise
        return on_device

    def _zeros(self, shape: int | tuple[int, ...], dtype: type) -> wp.array:
        device = self._launcher.device
        if device == "cpu":
            host = np.zeros(shape, dtype=wp.dtype_to_numpy(dtype))
            return wp.array(host, dtype=dtype, device=device, copy=False)
        return wp.zeros(shape, dtype=dtype, device=device)

    def _set_counters(self, **values: int) -> None:
        counters = self.state.counters.numpy()
        for name, value in values.items():
            counters[getattr(kernels, name)] = value
        self.state.counters.assign(counters)

    def _resize(self, capacity: int) -> None:
        """Give every per-block array room for `capacity` blocks and build the hash anew."""
        kept = min(int(self.state.counters.numpy()[kernels.BLOCK_COUNT]), self.state.capacity)
        for name, (tail, dtype) in PER_BLOCK.items():
            new = self._zeros((capacity, *tail), dtype)
            if kept:
                wp.copy(new, getattr(self.state, name), count=kept * math.prod(tail))
            setattr(self.state, name, new)
        self.state.capacity = capacity
        self._set_counters(BLOCK_COUNT=kept)
        self._rebuild_hash(1 << (4 * capacity - 1).bit_length())

    def _rebuild_hash(self, slots: int) -> None:
        device = self._launcher.device
        self.state.keys = wp.full(slots, kernels.EMPTY, dtype=wp.int64, device=device)
        self.state.block_of_key = wp.full(slots, kernels.REFUSED, dtype=wp.int32, device=device)
        count = int(self.state.counters.numpy()[kernels.BLOCK_COUNT])
        self._launcher.whole(kernels.insert_blocks, count, [self.state])


PER_BLOCK: dict[str, tuple[tuple[int, ...], type]] = {
    "coords": ((3,), wp.int32),
    "touched_at": ((), wp.int32),
    "changed": ((), wp.int32),
    "is_dirty": ((), wp.int32),
    "touched": ((), wp.int32),
    "dirty": ((), wp.int32),
    "sdf_sum": ((VOXELS,), wp.int32),
    "weight": ((VOXELS,), wp.uint16),
    "colour_sum": ((VOXELS, 3), wp.int32),
    "colour_weight": ((VOXELS,), wp.uint16),
}
BLOCK_BYTES: int = sum(
    math.prod(tail) * wp.types.type_size_in_bytes(t) for tail, t in PER_BLOCK.values()
)
SLOT_BYTES = 8 + 4


def first_capacity(device: str) -> int:
    """Blocks to make room for at first.

    A CPU has all the room at once, in zero pages that take memory only when written; so growing
    never copies, and no keyframe waits for it. A CUDA device begins small and doubles.
    """
    return sys.maxsize if device == "cpu" else FIRST_CUDA_CAPACITY
