# SPDX-License-Identifier: Apache-2.0
"""Surface of chosen blocks of a volume: sample, count, scan, emit, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import warp as wp
from jaxtyping import Int, Int32, Int64, UInt8, UInt32

from worldsystem_mesh import kernels_emission as emission
from worldsystem_mesh import kernels_sampling as sampling
from worldsystem_mesh import kernels_surface as kernels
from worldsystem_mesh import tables
from worldsystem_mesh.cells import POINTS_PER_SIDE, SurfaceCells
from worldsystem_mesh.launcher import Launcher, head, listed, zeros
from worldsystem_mesh.volume import BlockVolume

BATCH_BLOCKS = 4096
"""Extracted at once, with room of 6 kB each: what an update changes is one piece then, which nobody
has to copy together."""

POINTS = POINTS_PER_SIDE**3
CELLS = 512
CUDA_LANES = 32
CUDA_BATCH_BLOCKS = 4 * BATCH_BLOCKS
"""On a device, which waits for Python between batches; room that a CPU's process would keep."""

DeviceCode = Any  # an instance of the Warp struct `kernels_emission.Code`, which is not a class


@dataclass(frozen=True, eq=False)
class Extracted:
    """Surface of the blocks `blocks`: its code and, per block, a fingerprint of that code."""

    blocks: Int32[np.ndarray, "b"]
    cells: SurfaceCells
    fingerprint: Int64[np.ndarray, "b"]


class SurfaceExtractor:
    """Marching cubes over blocks; neighbours compute the same rim vertices, bit for bit.

    A block's low faces are read as they were when its surface last moved beyond the gate, by the
    block itself and by its neighbours, so that rims agree also between blocks drawn at different
    times.
    """

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        on_cpu = launcher.device == "cpu"
        self._lanes = 1 if on_cpu else CUDA_LANES
        self._batch_blocks = BATCH_BLOCKS if on_cpu else CUDA_BATCH_BLOCKS
        self._tables = make_tables(launcher.device)
        self._batch = sampling.Batch()
        for name, (tail, dtype) in PER_BATCH_BLOCK.items():
            shape = (self._batch_blocks, *tail)
            setattr(self._batch, name, zeros(shape, dtype, launcher.device))

    def surfaces(self, volume: BlockVolume, blocks: Int32[np.ndarray, "b"]) -> Iterator[Extracted]:
        """Yield the surface of `blocks`, in their order, some at a time; versions are 0.

        While blocks are on disk, so few at a time that they and their neighbours fit in memory;
        those that were forgotten stay so, and are unknown.
        """
        paging = volume.pool.is_paging
        most = self._batch_blocks
        step = min(most, max(volume.slot_limit // 8, 1)) if paging else most
        for start in range(0, len(blocks), step):
            batch = blocks[start : start + step]
            if paging:
                around = volume.with_upper_neighbours(batch)
                volume.make_resident(around[volume.pool.holds(around)])
            yield self._extract(volume, batch)

    def _extract(self, volume: BlockVolume, blocks: Int32[np.ndarray, "b"]) -> Extracted:
        device, n = self._launcher.device, len(blocks)
        on_device = listed(blocks, device)
        self._survey(volume, on_device)
        vertices, cells, faces = head(self._batch.counts, n).T
        vertex_start, cell_start = starts_of(vertices), starts_of(cells)
        face_counts = faces.copy()  # of one block it would be the batch itself, which is used again
        code, held = empty_code(vertex_start, cell_start, device)
        inputs = [volume.state, self._tables, self._batch, code, self._lanes]
        self._launcher.shared(emission.emit_surface, n, inputs, lanes=self._lanes)
        columns = columns_of(held.numpy(), code_layout(vertex_start, cell_start))
        fingerprint = columns.pop("fingerprint")
        surface = SurfaceCells(
            index=volume.coords(blocks),
            version=np.zeros(n, np.int32),
            vertex_start=vertex_start,
            cell_start=cell_start,
            face_counts=face_counts,
            **columns,
        )
        return Extracted(blocks, surface, fingerprint)

    def _survey(self, volume: BlockVolume, blocks: wp.array) -> None:
        """Leave in the batch what the blocks' samples say about their surface."""
        launch, n, state = self._launcher, blocks.shape[0], volume.state
        if launch.device == "cpu":
            inputs = [state, blocks, self._tables, self._batch]
            launch.shared(kernels.survey_blocks, n, inputs)
            return
        launch.whole(sampling.find_slots, (n, 8), [state, blocks, self._batch])
        launch.whole(sampling.sample_rows, (n, self._lanes), [state, self._batch, self._lanes])
        launch.whole(kernels.count_surface, n, [self._tables, self._batch])


def make_tables(device: str) -> Any:  # an instance of the Warp struct `kernels.Tables`
    """The marching-cubes tables on a device."""
    made = kernels.Tables()
    made.triangle_count = wp.array(tables.triangle_count_table(), dtype=wp.int32, device=device)
    offsets = tables.edge_offset_table(POINTS_PER_SIDE)
    named = tables.edge_table()
    corners = offsets[np.maximum(named, 0)].astype(np.int32).reshape(len(named), -1, 3)
    made.triangle = wp.array(corners, dtype=wp.vec3i, device=device)
    made.place_of_point = wp.array(packed_places(), dtype=wp.uint32, device=device)
    return made


def packed_places() -> UInt32[np.ndarray, "729"]:
    """Who holds each point of a block's 9³: bits 0 to 2 say which of the block and its upper
    neighbours, bits 3 to 11 which voxel, bits 16 to 24 which sample of its rim if bit 31 is set,
    else which voxel again."""
    z, y, x = np.indices((POINTS_PER_SIDE,) * 3, np.uint32)
    corner = (x >> 3) | (y >> 3) << 1 | (z >> 3) << 2
    x, y, z = x & 7, y & 7, z & 7
    voxel = (z * 8 + y) * 8 + x
    rim = np.where(z == 0, y * 8 + x, np.where(y == 0, 56 + z * 8 + x, 112 + z * 7 + y))
    on_rim = (x == 0) | (y == 0) | (z == 0)
    packed = corner | voxel << 3 | np.where(on_rim, rim, voxel) << 16
    return np.asarray((packed | on_rim.astype(np.uint32) << 31).ravel(), np.uint32)


def code_layout(
    vertex_start: Int32[np.ndarray, "b+1"], cell_start: Int32[np.ndarray, "b+1"]
) -> dict[str, tuple[int, int]]:
    """Where each column of the code begins in one piece of memory, and its rows: the widest
    elements first, so that all are aligned. One piece is one copy from a device."""
    vertices, cells = int(vertex_start[-1]), int(cell_start[-1])
    counts = {"fingerprint": len(vertex_start) - 1, "cells": cells, "cases": cells}
    layout, at = {}, 0
    for name, (dtype, width) in CODE_COLUMNS.items():
        rows = counts.get(name, vertices)
        layout[name] = (at, rows)
        at += rows * width * np.dtype(dtype).itemsize
    layout["end"] = (at, 0)
    return layout


def columns_of(held: UInt8[np.ndarray, "n"], layout: dict[str, tuple[int, int]]) -> dict[str, Any]:
    """The columns in a piece of memory, not copied."""
    made = {}
    for name, (dtype, width) in CODE_COLUMNS.items():
        at, rows = layout[name]
        end = at + rows * width * np.dtype(dtype).itemsize
        column: np.ndarray = held[at:end].view(dtype)
        made[name] = column.reshape(rows, width) if width > 1 else column
    return made


def empty_code(
    vertex_start: Int32[np.ndarray, "b+1"], cell_start: Int32[np.ndarray, "b+1"], device: str
) -> tuple[DeviceCode, wp.array]:
    """Room for the code of blocks with these many vertices and cells, and the memory it is in."""
    layout = code_layout(vertex_start, cell_start)
    held = wp.empty(layout["end"][0], dtype=wp.uint8, device=device)
    code = emission.Code()
    code.vertex_start, code.cell_start = listed(vertex_start, device), listed(cell_start, device)
    for name, dtype in CODE_TYPES.items():
        at, rows = layout[name]
        address = (held.ptr or 0) + at
        setattr(code, name, wp.array(ptr=address, dtype=dtype, shape=rows, device=device))
    code.fingerprint.zero_()
    return code, held


def starts_of(counts: Int[np.ndarray, "b"]) -> Int32[np.ndarray, "b+1"]:
    starts = np.zeros(len(counts) + 1, np.int32)
    np.cumsum(counts, out=starts[1:])
    return starts


CODE_COLUMNS: dict[str, tuple[type, int]] = {
    "fingerprint": (np.int64, 1),
    "edges": (np.uint16, 1),
    "shares": (np.uint16, 1),
    "cells": (np.uint16, 1),
    "colours": (np.uint8, 3),
    "cases": (np.uint8, 1),
}
CODE_TYPES: dict[str, type] = {
    "fingerprint": wp.int64,
    "edges": wp.uint16,
    "shares": wp.uint16,
    "cells": wp.uint16,
    "colours": wp.vec3ub,
    "cases": wp.uint8,
}
PER_BATCH_BLOCK: dict[str, tuple[tuple[int, ...], type]] = {
    "slots": ((8,), wp.int32),
    "inside": ((81,), wp.int16),
    "known": ((81,), wp.int16),
    "edge_of_vertex": ((3 * POINTS,), wp.uint16),
    "cell": ((CELLS,), wp.uint16),
    "case_of_cell": ((CELLS,), wp.uint8),
    "counts": ((3,), wp.int32),
}
