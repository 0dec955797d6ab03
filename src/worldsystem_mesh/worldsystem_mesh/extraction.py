# SPDX-License-Identifier: Apache-2.0
"""Surface of chosen blocks of a volume: sample, count, scan, emit, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import warp as wp
from jaxtyping import Int, Int32, Int64

from worldsystem_mesh import kernels_surface as kernels
from worldsystem_mesh import tables
from worldsystem_mesh.cells import POINTS_PER_SIDE, SurfaceCells
from worldsystem_mesh.launcher import Launcher, head
from worldsystem_mesh.volume import BlockVolume

BATCH_BLOCKS = 2048
POINTS = POINTS_PER_SIDE**3
CELLS = 512
CUDA_LANES = 32
DeviceCode = Any  # an instance of the Warp struct `kernels.Code`, which is not a class


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
        self._lanes = 1 if launcher.device == "cpu" else CUDA_LANES
        self._tables = make_tables(launcher.device)
        self._batch = kernels.Batch()
        for name, (tail, dtype) in PER_BATCH_BLOCK.items():
            shape = (BATCH_BLOCKS, *tail)
            setattr(self._batch, name, wp.zeros(shape, dtype=dtype, device=launcher.device))

    def surfaces(self, volume: BlockVolume, blocks: Int32[np.ndarray, "b"]) -> Iterator[Extracted]:
        """Yield the surface of `blocks`, in their order, some at a time; versions are 0.

        While blocks are on disk, so few at a time that they and their neighbours fit in memory.
        """
        paging = volume.pool.is_paging
        step = min(BATCH_BLOCKS, max(volume.slot_limit // 8, 1)) if paging else BATCH_BLOCKS
        for start in range(0, len(blocks), step):
            batch = blocks[start : start + step]
            if paging:
                volume.make_resident(volume.with_upper_neighbours(batch))
            yield self._extract(volume, batch)

    def _extract(self, volume: BlockVolume, blocks: Int32[np.ndarray, "b"]) -> Extracted:
        device, n = self._launcher.device, len(blocks)
        on_device = wp.array(blocks, dtype=wp.int32, device=device, copy=False)
        inputs = [volume.state, on_device, self._batch]
        self._launcher.whole(kernels.find_slots, (n, 8), inputs)
        inputs = [volume.state, self._batch, self._lanes]
        self._launcher.sliced(kernels.sample_rows, n, inputs, inner=(self._lanes,))
        self._launcher.sliced(kernels.count_surface, n, [self._tables, self._batch])
        vertex_start = starts_of(head(self._batch.vertex_count, n))
        cell_start = starts_of(head(self._batch.cell_count, n))
        code = empty_code(vertex_start, cell_start, device)
        inputs = [volume.state, self._batch, code, self._lanes]
        self._launcher.sliced(kernels.emit_surface, n, inputs, inner=(self._lanes,))
        cells = SurfaceCells(
            index=volume.coords(blocks),
            version=np.zeros(n, np.int32),
            vertex_start=vertex_start,
            cell_start=cell_start,
            face_counts=head(self._batch.face_count, n).copy(),
            edges=code.edges.numpy(),
            shares=code.shares.numpy(),
            colours=code.colours.numpy(),
            cells=code.cells.numpy(),
            cases=code.cases.numpy(),
        )
        return Extracted(blocks, cells, code.fingerprint.numpy())


def make_tables(device: str) -> Any:  # an instance of the Warp struct `kernels.Tables`
    """The marching-cubes tables on a device."""
    made = kernels.Tables()
    made.triangle_count = wp.array(tables.triangle_count_table(), dtype=wp.int32, device=device)
    offsets = tables.edge_offset_table(POINTS_PER_SIDE)
    named = tables.edge_table()
    corners = offsets[np.maximum(named, 0)].astype(np.int32).reshape(len(named), -1, 3)
    made.triangle = wp.array(corners, dtype=wp.vec3i, device=device)
    once = [list(dict.fromkeys(edge for edge in case if edge >= 0)) for case in named.tolist()]
    edges = np.zeros((len(once), len(tables.EDGES)), np.int32)
    for case, found in enumerate(once):
        edges[case, : len(found)] = offsets[found]
    made.edge_count = wp.array([len(found) for found in once], dtype=wp.int32, device=device)
    made.edge = wp.array(edges, dtype=wp.int32, device=device)
    return made


def empty_code(
    vertex_start: Int32[np.ndarray, "b+1"], cell_start: Int32[np.ndarray, "b+1"], device: str
) -> DeviceCode:
    """Room for the code of blocks with these many vertices and cells."""
    code, vertices, cells = kernels.Code(), int(vertex_start[-1]), int(cell_start[-1])
    code.vertex_start = wp.array(vertex_start, dtype=wp.int32, device=device, copy=False)
    code.cell_start = wp.array(cell_start, dtype=wp.int32, device=device, copy=False)
    code.edges = wp.empty(vertices, dtype=wp.uint16, device=device)
    code.shares = wp.empty(vertices, dtype=wp.uint16, device=device)
    code.colours = wp.empty(vertices, dtype=wp.vec3ub, device=device)
    code.cells = wp.empty(cells, dtype=wp.uint16, device=device)
    code.cases = wp.empty(cells, dtype=wp.uint8, device=device)
    code.fingerprint = wp.zeros(len(vertex_start) - 1, dtype=wp.int64, device=device)
    return code


def starts_of(counts: Int[np.ndarray, "b"]) -> Int32[np.ndarray, "b+1"]:
    starts = np.zeros(len(counts) + 1, np.int32)
    np.cumsum(counts, out=starts[1:])
    return starts


PER_BATCH_BLOCK: dict[str, tuple[tuple[int, ...], type]] = {
    "slots": ((8,), wp.int32),
    "inside": ((81,), wp.int16),
    "known": ((81,), wp.int16),
    "vertex_of_edge": ((3 * POINTS,), wp.int16),
    "edge_of_vertex": ((3 * POINTS,), wp.uint16),
    "cell": ((CELLS,), wp.uint16),
    "case_of_cell": ((CELLS,), wp.uint8),
    "cell_count": ((), wp.int32),
    "vertex_count": ((), wp.int32),
    "face_count": ((), wp.int32),
}
