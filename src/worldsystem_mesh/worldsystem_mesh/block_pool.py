# SPDX-License-Identifier: Apache-2.0
"""Where blocks' voxels lie: in slots of the pool while there is room, else in the page file."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import warp as wp
from jaxtyping import Bool, Int, Int32, UInt8

from worldsystem_core.pages import blank_rows, unwritten_zeros
from worldsystem_mesh.kernels_volume import NEVER_IN, PAGED_OUT, RIM_SAMPLES
from worldsystem_mesh.launcher import blank, rows, scatter, zeros
from worldsystem_mesh.page_file import PageFile, PagingFailed

log = logging.getLogger(__name__)

VOXELS = 512
PER_SLOT: dict[str, tuple[tuple[int, ...], type]] = {
    "sdf": ((VOXELS,), wp.int16),
    "paint": ((VOXELS,), wp.uint32),
    "rim": ((RIM_SAMPLES,), wp.int16),
}
SLOT_BYTES: int = sum(
    math.prod(tail) * wp.types.type_size_in_bytes(t) for tail, t in PER_SLOT.values()
)
FIRST_CUDA_SLOTS = 8192
EVICT_AT_ONCE = 256
MOVED_AT_ONCE = 512
"""Between memory and disk: their records are in memory twice meanwhile."""
GIVEN_BACK_AT_ONCE = 256
"""Slots beyond what the budget still has room for, as more blocks take more places elsewhere."""
FREE = -1

VolumeState = Any  # an instance of the Warp struct `kernels_volume.Volume`, which is not a class


class BlockPool:
    """Gives slots to blocks, least recently seen blocks losing theirs when memory is short.

    Block numbers are for good; `slot` says where a block is (`PAGED_OUT`, `NEVER_IN` else). A block
    that comes back is what it was, bit for bit.
    """

    def __init__(self, state: VolumeState, device: str, budget_bytes: int, page_dir: str) -> None:
        self.paged_out = 0
        self.paged_in = 0
        self._state = state
        self._device = device
        self._budget_bytes = budget_bytes
        self._page_dir = page_dir
        self._pages: PageFile | None = None
        self._is_stuck = False
        self._used = 0
        self._high_water = 0
        self._free: list[int] = []
        self._seen_at = np.zeros(0, np.int32)
        self._clock = 0
        self.slot = np.zeros(0, np.int32)
        most = max(budget_bytes // SLOT_BYTES, 8)
        self._owner = np.full(most, FREE, np.int32)
        self._allocate(most if device == "cpu" else min(most, FIRST_CUDA_SLOTS))

    @property
    def bytes(self) -> int:
        """Memory of the slots in use."""
        return self._used * SLOT_BYTES

    @property
    def disk_bytes(self) -> int:
        """Size of the page file."""
        return self._pages.size_bytes if self._pages else 0

    @property
    def is_paging(self) -> bool:
        """Whether any block is on disk only."""
        return self._pages is not None and len(self._pages) > 0

    def grow(self, capacity: int) -> None:
        """Follow the volume: room for the places of `capacity` blocks."""
        slot = np.full(capacity, NEVER_IN, np.int32)
        slot[: len(self.slot)] = self.slot
        seen_at = unwritten_zeros(capacity, np.int32)
        seen_at[: len(self._seen_at)] = self._seen_at
        self._seen_at = seen_at
        if self._device == "cpu":
            self._state.slot = wp.array(slot, dtype=wp.int32, device="cpu", copy=False)
            self.slot = self._state.slot.numpy()
        else:
            self.slot = slot
            self._state.slot = wp.array(slot, dtype=wp.int32, device=self._device)

    def bring_in(self, blocks: Int32[np.ndarray, "b"], other_bytes: int) -> int:
        """Give every one of `blocks` a slot, reading back what was on disk; return how many could
        not get one (because these alone are more than the budget, of which `other_bytes` are
        used by others, or because the disk has no room for those that should make way: then only
        those that are new can fail, as others swap their places on disk)."""
        self._clock += 1
        self._seen_at[blocks] = self._clock
        missing = blocks[self.slot[blocks] < 0]
        if not len(missing):
            return 0
        missing = missing[np.argsort(self.slot[missing] != PAGED_OUT, kind="stable")]
        self._grow(min(self._used + len(missing), self.limit(other_bytes)))
        limit = self.limit(other_bytes)
        over, evicted = self._used + len(missing) - limit, missing[:0]
        if over > 0:
            wanted = self._oldest(max(over, EVICT_AT_ONCE))
            evicted = self._page_out(wanted)
            self._is_stuck = len(evicted) < len(wanted)
        moved = self._draw_in(limit)
        granted = missing[: max(limit - self._used, 0)]
        for some in pieces(granted):
            self._admit(some, self._taken(some))
        waiting = missing[len(granted) :]
        swapped, back = self._swap(waiting[self.slot[waiting] == PAGED_OUT])
        self._upload_slots(np.concatenate([evicted, moved, granted, swapped, back]))
        return len(waiting) - len(back)

    def holds(self, blocks: Int32[np.ndarray, "b"]) -> Bool[np.ndarray, "b"]:
        """Whether each block has voxels, in memory or on disk."""
        return np.asarray(self.slot[blocks] != NEVER_IN)

    def release(self, blocks: Int32[np.ndarray, "b"]) -> None:
        """Let go of the voxels of these blocks, which have some: they are as if they never had."""
        on_disk = blocks[self.slot[blocks] == PAGED_OUT]
        in_memory = blocks[self.slot[blocks] >= 0]
        for block in on_disk.tolist():
            assert self._pages is not None  # a block was paged out
            self._pages.forget(block)
        slots = self.slot[in_memory]
        self._owner[slots] = FREE
        self._free += slots.tolist()
        self._used -= len(slots)
        self.slot[blocks] = NEVER_IN
        self._upload_slots(blocks)

    def clear(self) -> None:
        """Let go of all voxels at once; the page file goes, too."""
        held = np.flatnonzero(self.slot != NEVER_IN).astype(np.int32)
        self.close()
        self._owner[: self._high_water] = FREE
        self._free, self._used = list(range(self._high_water)), 0
        self.slot[held] = NEVER_IN
        self._upload_slots(held)

    def limit(self, other_bytes: int) -> int:
        """Blocks that may be in memory when others use `other_bytes` of the budget."""
        return min(max((self._budget_bytes - other_bytes) // SLOT_BYTES, 8), len(self._owner))

    def last_seen(self, blocks: Int[np.ndarray, "b"]) -> Int[np.ndarray, "b"]:
        """When each block was last brought in, in steps of `clock`."""
        return np.asarray(self._seen_at[blocks])

    def rows(self, name: str, slots: Int[np.ndarray, "n"]) -> np.ndarray:
        """A copy of the given slots of one of the voxel arrays."""
        return rows(getattr(self._state.voxels, name), slots)

    def close(self) -> None:
        """Delete the page file."""
        if self._pages is not None:
            self._pages.close(delete=True)
            self._pages = None

    def _grow(self, slots: int) -> None:
        """Have so many slots at least, before anything is moved; where a device has no memory for
        more, those that there are stay all, and older blocks go to disk."""
        if slots <= self._slots:
            return
        try:
            self._allocate(min(max(2 * self._slots, slots), len(self._owner)))
        except RuntimeError as error:  # Warp's, of a device that is full
            log.warning("more of the surface goes to disk from now on: %s", error)
            self._owner = self._owner[: self._slots]

    def _allocate(self, slots: int) -> None:
        """Make the voxel arrays; on a CPU zero pages, which take memory when they are written."""
        for name, (tail, dtype) in PER_SLOT.items():
            old = getattr(self._state.voxels, name)
            new = zeros((slots, *tail), dtype, self._device)
            if old is not None and old.size:
                wp.copy(new, old, count=old.size)
            setattr(self._state.voxels, name, new)
        self._slots = slots

    def _upload_slots(self, blocks: Int32[np.ndarray, "n"]) -> None:
        """Tell a device where these blocks are now; a CPU's kernels read `slot` itself."""
        if self._device != "cpu" and len(blocks):
            scatter(self._state.slot, blocks, self.slot[blocks])

    def _oldest(self, count: int) -> Int32[np.ndarray, "n"]:
        """Blocks in memory that were seen longest ago, none of them at the last step."""
        owners = self._owner[: self._high_water]
        owners = owners[owners != FREE]
        owners = owners[self._seen_at[owners] < self._clock]
        if len(owners) <= count:
            return np.asarray(owners)
        return np.asarray(owners[np.argpartition(self._seen_at[owners], count)[:count]])

    def _page_out(self, blocks: Int32[np.ndarray, "n"]) -> Int32[np.ndarray, "m"]:
        """Move these blocks to disk; returns those for which there was room."""
        if not len(blocks):
            return blocks
        written = 0
        try:
            if self._pages is None:
                self._pages = PageFile.temporary(self._page_dir, "blocks", SLOT_BYTES, dense=True)
            for some in pieces(blocks):
                for block, record in zip(some, self._records(self.slot[some]), strict=True):
                    self._pages.write(int(block), record)
                    written += 1
        except PagingFailed as error:  # a full disk costs what is new, and ends nothing
            if not self._is_stuck:
                log.warning("new parts of the surface are left out: %s", error)
        blocks = blocks[:written]
        slots = self.slot[blocks]
        self.slot[blocks] = PAGED_OUT
        self._owner[slots] = FREE
        self._free += slots.tolist()
        self._used -= len(slots)
        self.paged_out += len(slots)
        return blocks

    def _draw_in(self, limit: int) -> Int32[np.ndarray, "n"]:
        """On a CPU, give the memory of slots from `limit` on back to the system; returns the blocks
        in them, which move to free slots before it."""
        nobody = self._owner[:0]
        if self._device != "cpu" or self._high_water < limit + GIVEN_BACK_AT_ONCE:
            return nobody
        beyond = np.arange(limit, self._high_water, dtype=np.int32)
        left = beyond[self._owner[beyond] != FREE]
        blocks: Int32[np.ndarray, "n"] = self._owner[left]
        free = np.array(self._free, np.int32)
        free = free[free < limit]
        if len(left) > len(free):  # a full disk has kept them in memory
            return nobody
        to = free[: len(left)]
        for name in PER_SLOT:
            array = getattr(self._state.voxels, name).numpy()
            array[to] = array[left]
            blank_rows(array[limit : self._high_water])
        self._owner[to], self._owner[left] = blocks, FREE
        self.slot[blocks] = to
        self._free, self._high_water = free[len(left) :].tolist(), limit
        return blocks

    def _swap(
        self, blocks: Int32[np.ndarray, "n"]
    ) -> tuple[Int32[np.ndarray, "m"], Int32[np.ndarray, "m"]]:
        """Bring in these blocks from a disk without room in exchange for the oldest in memory,
        which take their places there; returns those that went and those that came."""
        oldest = self._oldest(len(blocks))
        coming = blocks[: len(oldest)]
        records = self._taken(coming)
        gone = self._page_out(oldest)
        self._admit(coming, records)
        return gone, coming

    def _taken(self, blocks: Int32[np.ndarray, "n"]) -> UInt8[np.ndarray, "m r"]:
        """The voxels of those of the blocks that are on disk, whose places there are free then."""
        out = blocks[self.slot[blocks] == PAGED_OUT].tolist()
        records = np.empty((len(out), SLOT_BYTES), np.uint8)
        for row, block in enumerate(out):
            assert self._pages is not None  # a block was paged out
            records[row] = self._pages.read(block)
        for block in out:
            assert self._pages is not None  # a block was paged out
            self._pages.forget(block)
        return records

    def _admit(self, blocks: Int32[np.ndarray, "n"], records: UInt8[np.ndarray, "m r"]) -> None:
        """Give each block a slot with its voxels: those in the records, which are of the blocks
        that were on disk, else unknown ones."""
        recycled = min(len(self._free), len(blocks))
        fresh = len(blocks) - recycled
        reused = np.array(self._free[len(self._free) - recycled :], np.int32)
        del self._free[len(self._free) - recycled :]
        new = np.arange(self._high_water, self._high_water + fresh, dtype=np.int32)
        slots = np.concatenate([reused, new])
        self._high_water += fresh
        self._used += len(blocks)
        self._owner[slots] = blocks
        was_out = self.slot[blocks] == PAGED_OUT
        self.slot[blocks] = slots
        self._blank(slots[:recycled][~was_out[:recycled]])
        self._write_records(slots[was_out], records)
        self.paged_in += len(records)

    def _blank(self, slots: Int32[np.ndarray, "n"]) -> None:
        """Make the voxels of these slots unknown."""
        if len(slots):
            for name in PER_SLOT:
                blank(getattr(self._state.voxels, name), slots)

    def _records(self, slots: Int32[np.ndarray, "n"]) -> UInt8[np.ndarray, "n r"]:
        columns = [
            np.ascontiguousarray(self.rows(name, slots)).view(np.uint8).reshape(len(slots), -1)
            for name in PER_SLOT
        ]
        return np.concatenate(columns, axis=1)

    def _write_records(
        self, slots: Int32[np.ndarray, "n"], records: UInt8[np.ndarray, "n r"]
    ) -> None:
        if not len(slots):
            return
        at = 0
        for name, (tail, dtype) in PER_SLOT.items():
            array, plain = getattr(self._state.voxels, name), wp.dtype_to_numpy(dtype)
            width = math.prod(tail) * np.dtype(plain).itemsize
            column = np.ascontiguousarray(records[:, at : at + width])
            values = column.view(plain).reshape(len(slots), *tail)
            at += width
            if self._device == "cpu":
                array.numpy()[slots] = values
            else:
                scatter(array, slots, values)


def pieces(blocks: Int32[np.ndarray, "n"]) -> Iterator[Int32[np.ndarray, "m"]]:
    """So many of the blocks that moving them takes little memory."""
    for start in range(0, len(blocks), MOVED_AT_ONCE):
        yield blocks[start : start + MOVED_AT_ONCE]
