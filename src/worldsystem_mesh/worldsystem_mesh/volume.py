# SPDX-License-Identifier: Apache-2.0
"""The sparse volume: blocks of 8³ voxels in a hash (`block_hash`), into which views are fused."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import warp as wp
from jaxtyping import Bool, Float32, Int, Int16, Int32, UInt8

from worldsystem_mesh import kernels_changes as changes
from worldsystem_mesh import kernels_fusion as fusion
from worldsystem_mesh import kernels_rays as rays
from worldsystem_mesh import kernels_volume as kernels
from worldsystem_mesh.block_hash import BlockHash
from worldsystem_mesh.block_pool import BlockPool
from worldsystem_mesh.config import MeshConfig
from worldsystem_mesh.device_view import DeviceView, device_view, last_orders, together
from worldsystem_mesh.launcher import STEP, Launcher, head, listed, rows
from worldsystem_mesh.view import StoredView

BAND_STRIDE_VOXELS = 4.0
FREE_SPACE_STRIDE_PX = 8
ROWS = 64
FIRST_CAPACITY = 1 << 16
MOST_BLOCKS = 1 << 24
WATCHED_VOXELS = 2.0
NOWHERE = -1
"""No block's key."""

UPPER = np.array([(i & 1, i >> 1 & 1, i >> 2) for i in range(1, 8)], np.int32)


class BlockVolume:
    """Means of distance, weight and colour per voxel, 6 bytes in all; see `kernels_volume`.

    `voxel` is the edge of a voxel [world units]. Fusing the same views in the same order gives the
    same volume, bit for bit, however memory is paged and threads are cut.
    """

    def __init__(self, config: MeshConfig, launcher: Launcher, voxel: float) -> None:
        self.voxel = voxel
        self.refused_blocks = 0
        self.outside = 0
        self._config = config
        self._launcher = launcher
        self._lanes = 1 if launcher.device == "cpu" else ROWS
        self._stamp = 0
        self.state = kernels.Volume()
        self.state.voxels.max_weight = round(config.max_weight * kernels.WEIGHT_UNITS)
        self.state.voxels.min_weight = max(1, round(config.min_weight * kernels.WEIGHT_UNITS))
        self.state.gate = config.redraw_voxels
        watched = WATCHED_VOXELS if config.redraw_voxels > 0 else 20.0
        self.state.voxels.watched = int(watched * kernels.SDF_UNITS)
        self.state.half_life = config.decay_keyframes
        self._hash = BlockHash(self.state, launcher)
        recent = 0 if self.is_on_cuda else rays.RECENT_BLOCKS
        self._recent = np.full(recent, NOWHERE, np.int64)
        self._recently = wp.array(self._recent, dtype=wp.int64, device=launcher.device, copy=False)
        self._single = (self._list(np.zeros(1)), self._list(np.zeros(1)))
        self.pool = BlockPool(self.state, launcher.device, config.voxel_bytes, config.page_dir)
        self._resize(FIRST_CAPACITY)

    @property
    def block_count(self) -> int:
        """Blocks that ever were, in memory or on disk."""
        return self._hash.count

    @property
    def bytes(self) -> int:
        """Memory that blocks, their places and the hash take."""
        return self.pool.bytes + self._hash.bytes

    @property
    def is_on_cuda(self) -> bool:
        return self._launcher.device != "cpu"

    @property
    def slot_limit(self) -> int:
        """How many blocks may be in memory at once."""
        return self.pool.limit(self._hash.bytes)

    def coords(self, blocks: Int[np.ndarray, "b"]) -> Int32[np.ndarray, "b 3"]:
        """Block indices of the given block numbers."""
        return self._hash.coords(blocks)

    def change(self, blocks: Int[np.ndarray, "b"]) -> Float32[np.ndarray, "b"]:
        """How far the surface in each block has moved in all [voxels]; never shrinks."""
        return rows(self.state.change, blocks)

    def is_dirty(self, blocks: Int[np.ndarray, "b"]) -> Bool[np.ndarray, "b"]:
        """Whether each block is to be drawn again."""
        return np.asarray(rows(self.state.is_dirty, blocks) != 0)

    def numbers(self, coords: Int[np.ndarray, "b 3"]) -> Int32[np.ndarray, "b"]:
        """Block numbers at the given block indices, -1 where there is none."""
        return self._hash.numbers(coords)

    def add(self, view: StoredView) -> StoredView:
        """Fuse `view`; return it with the blocks that it went into (none when it is too far
        away for the lattice)."""
        on_device = self.on_device(view)
        touched = self._touched(view, on_device)
        blocks = touched.blocks
        if on_device is not None and len(blocks):
            listed = self._list(blocks)
            pairs = self._one_view_each(len(blocks))
            orders = np.full(len(blocks), view.order, np.int32)
            self._fuse([on_device], listed, *pairs, noted=orders)
        return touched

    def touch(self, view: StoredView) -> StoredView:
        """Find the blocks that `view` belongs into, adding those it needs; nothing is fused."""
        return self._touched(view, self.on_device(view))

    def fuse(self, view: StoredView, blocks: Int32[np.ndarray, "b"]) -> None:
        """Fuse `view` into the given blocks, which are in memory."""
        on_device = self.on_device(view)
        if len(blocks) and on_device is not None:
            listed = self._list(blocks)
            self._fuse([on_device], listed, *self._one_view_each(len(blocks)))

    def note(self, blocks: Int32[np.ndarray, "b"], order: int) -> None:
        """Work out which of the blocks, just fused into, are to be drawn again."""
        if len(blocks):
            self._note(self._list(blocks), np.full(len(blocks), order, np.int32))

    def note_pending(self) -> None:
        """Have all blocks drawn again that moved at all, however little."""
        count = self.block_count
        moved = head(self.state.change, count) > head(self.state.change_drawn, count)
        pending = np.nonzero(moved)[0].astype(np.int32)
        pending = pending[self.pool.holds(pending)]
        step = min(1024, max(self.slot_limit // 2, 1))
        for start in range(0, len(pending), step):
            blocks = pending[start : start + step]
            self.make_resident(blocks)
            inputs = [self.state, self._list(blocks)]
            self._launcher.shared(changes.add_pending, len(blocks), inputs)
            self._launcher.whole(changes.list_dirty, len(blocks), inputs)

    def rebuild(
        self,
        blocks: Int32[np.ndarray, "b"],
        views: list[DeviceView],
        start: Int32[np.ndarray, "b+1"],
        view_of_pair: Int32[np.ndarray, "p"],
    ) -> None:
        """Make the blocks, which are in memory, what the given views in their order make of them.

        Block i gets `views[j]` for each j in `view_of_pair[start[i]:start[i + 1]]`.
        """
        if not len(blocks):
            return
        listed = self._list(blocks)
        inputs = [self.state, listed, self._lanes]
        self._launcher.shared(fusion.empty_blocks, len(blocks), inputs, lanes=self._lanes)
        if views:
            pairs = self._list(start), self._list(view_of_pair)
            self._fuse(views, listed, *pairs, noted=last_orders(views, start, view_of_pair))
        else:
            self._note(listed, np.zeros(len(blocks), np.int32))

    def dirty_blocks(self) -> Int32[np.ndarray, "b"]:
        """Blocks to be drawn again since the last call, in ascending order."""
        count = int(self._hash.counters()[kernels.DIRTY])
        if not count:
            return np.zeros(0, np.int32)
        blocks = np.sort(head(self.state.dirty, count))
        if self.is_on_cuda:
            self._launcher.whole(changes.clear_dirty, count, [self.state, self.state.dirty])
        else:
            self.state.is_dirty.numpy()[blocks] = 0
        self._hash.clear_counters(kernels.DIRTY, kernels.DIRTY)
        return np.asarray(blocks)

    def make_resident(self, blocks: Int32[np.ndarray, "b"]) -> int:
        """Bring the blocks into memory; return for how many there was no room."""
        return self.pool.bring_in(blocks, self._hash.bytes)

    def release(self, blocks: Int32[np.ndarray, "b"]) -> int:
        """Let go of these blocks' voxels; returns how many there are."""
        self.pool.release(blocks)
        return len(blocks)

    def with_upper_neighbours(self, blocks: Int32[np.ndarray, "b"]) -> Int32[np.ndarray, "n"]:
        """The blocks and those whose samples their cells read."""
        upper = (self.coords(blocks)[:, None] + UPPER).reshape(-1, 3)
        found = self.numbers(upper)
        return np.unique(np.concatenate([blocks, found[found >= 0]])).astype(np.int32)

    def samples(self, blocks: Int32[np.ndarray, "b"]) -> Int16[np.ndarray, "b 8 8 8"]:
        """Signed distances [1/2000 voxel] of the blocks' voxels (z, y, x), as last fused; those
        not seen often enough are -32768. Ask for no more than `slot_limit` blocks at once: those
        that memory has no room for are unknown."""
        slots, is_here = self._slots_of(blocks)
        known = self.pool.rows("paint", slots) >> 24 >= self.state.voxels.min_weight
        known &= is_here[:, None]
        sdf = np.where(known, self.pool.rows("sdf", slots), np.int16(-32768))
        return np.asarray(sdf.reshape(-1, 8, 8, 8))

    def colours(self, blocks: Int32[np.ndarray, "b"]) -> UInt8[np.ndarray, "b 8 8 8 3"]:
        """Colours of the blocks' voxels (z, y, x); black where none was seen, and in blocks that
        memory has no room for."""
        slots, is_here = self._slots_of(blocks)
        paint = self.pool.rows("paint", slots).astype("<u4")
        paint[~is_here] = 0
        return np.ascontiguousarray(paint.view(np.uint8).reshape(-1, 8, 8, 8, 4)[..., :3])

    def close(self) -> None:
        """Give up the page file; the volume must not be used afterwards."""
        self.pool.close()

    def on_device(self, view: StoredView) -> DeviceView | None:
        """The view as the kernels see it; None when its camera is beyond the lattice."""
        return device_view(view, self.voxel, self._config, self._launcher.device)

    def _fuse(
        self,
        views: list[DeviceView],
        blocks: wp.array,
        start: wp.array,
        view_of_pair: wp.array,
        noted: Int32[np.ndarray, "b"] | None = None,
    ) -> None:
        """Fuse the pairs; with `noted`, the order of each block's last view, do what `_note` does,
        too."""
        device, count, lanes = self._launcher.device, blocks.shape[0], self._lanes
        seen = views[0].alone if len(views) == 1 else together(views, device)
        at_once = noted is not None and lanes == 1
        inputs = [self.state, seen, blocks, start, view_of_pair, lanes, at_once]
        step = max(STEP * count // max(view_of_pair.shape[0], 1), 1)
        self._launcher.shared(fusion.fuse_views, count, inputs, lanes=lanes, step=step)
        if at_once:
            self._launcher.whole(changes.list_dirty, count, [self.state, blocks])
        elif noted is not None:
            self._note(blocks, noted)

    def _one_view_each(self, count: int) -> tuple[wp.array, wp.array]:
        """Pairs of `count` blocks with the only view: where each begins, and which view it is."""
        if count >= self._single[0].shape[0]:
            room = 2 * count + 1
            self._single = (self._list(np.arange(room)), self._list(np.zeros(room)))
        return self._single[0], self._single[1][:count]

    def _note(self, blocks: wp.array, orders: Int32[np.ndarray, "b"]) -> None:
        """What `note` does; `orders` are those of each block's last view."""
        count, inputs = blocks.shape[0], [self.state, blocks, self._list(orders)]
        self._launcher.shared(changes.add_changes, count, inputs)
        self._launcher.whole(changes.list_dirty, count, [self.state, blocks])

    def _touched(self, view: StoredView, on_device: DeviceView | None) -> StoredView:
        if on_device is None:
            self.outside += 1  # wherever it was, it is in no block any more
            return replace(view, band=view.band[:0], free=view.free[:0])
        band, free = self._touch(on_device, view)
        self.refused_blocks += self.make_resident(np.concatenate([band, free]))
        return replace(view, band=band, free=free)

    def _touch(
        self, on_device: DeviceView, view: StoredView
    ) -> tuple[Int32[np.ndarray, "b"], Int32[np.ndarray, "f"]]:
        """Blocks in the band and in free space, ascending; grows the volume until they fit."""
        stride = band_stride_px(view, self.voxel)
        while True:
            self._stamp += 1
            self._recent.fill(NOWHERE)
            self._hash.clear_counters(kernels.TOUCHED, kernels.IN_BAND)
            self._walk_rays(rays.touch_band, on_device, view, stride)
            self._hash.keep_band_count()
            if self._config.free_space:
                self._walk_rays(rays.touch_free_space, on_device, view, FREE_SPACE_STRIDE_PX)
            counters = self._hash.counters()
            blocks, touched = int(counters[kernels.BLOCKS]), int(counters[kernels.TOUCHED])
            fits = blocks <= self.state.capacity and not counters[kernels.LOST]
            if not fits and self.state.capacity < MOST_BLOCKS:
                self._resize(min(max(2 * self.state.capacity, 2 * blocks), MOST_BLOCKS))
                continue
            if not fits:
                self.refused_blocks += max(blocks - self.state.capacity, 0)
                self._hash.keep_first(min(blocks, self.state.capacity))
            elif 3 * blocks > 2 * self.state.capacity and self.state.capacity < MOST_BLOCKS:
                self._resize(2 * self.state.capacity)
            self.outside += int(counters[kernels.OUTSIDE])
            self._hash.follow(min(blocks, int(self.state.capacity)))
            in_band = int(counters[kernels.IN_BAND])
            found = head(self.state.touched, touched)
            return np.sort(found[:in_band]), np.sort(found[in_band:])

    def _walk_rays(
        self, kernel: wp.Kernel, on_device: DeviceView, view: StoredView, stride: int
    ) -> None:
        dim = tuple(math.ceil(side / stride) for side in view.depth.shape)
        inputs = [self.state, on_device.alone, self._recently, stride, self._stamp]
        self._launcher.whole(kernel, dim, inputs)

    def _slots_of(
        self, blocks: Int32[np.ndarray, "b"]
    ) -> tuple[Int32[np.ndarray, "b"], Bool[np.ndarray, "b"]]:
        """Where the blocks, brought into memory, lie, and which of them do; others have slot 0."""
        self.make_resident(blocks)
        slots = self.pool.slot[blocks]
        return np.maximum(slots, 0), np.asarray(slots >= 0)

    def _list(self, blocks: Int32[np.ndarray, "b"]) -> wp.array:
        return listed(blocks, self._launcher.device)

    def _resize(self, capacity: int) -> None:
        self.pool.grow(capacity)
        self._hash.resize(capacity)


def band_stride_px(view: StoredView, voxel: float) -> int:
    """Pixels between rays so that, at the farthest depth, they are half a block apart."""
    farthest = float(view.depth.max()) * view.depth_step / voxel
    apart_voxels = farthest / max(view.camera.fx, view.camera.fy)
    return int(min(max(BAND_STRIDE_VOXELS / max(apart_voxels, 1e-6), 1.0), 4.0))
