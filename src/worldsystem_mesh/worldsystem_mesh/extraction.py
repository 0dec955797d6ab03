# SPDX-License-Identifier: Apache-2.0
"""Surface of chosen blocks of a volume: count, scan, emit, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import warp as wp
from jaxtyping import Float32, Int32, UInt8

from worldsystem_core.surface import BlockIndex
from worldsystem_mesh import kernels_surface as kernels
from worldsystem_mesh import tables
from worldsystem_mesh.launcher import Launcher
from worldsystem_mesh.volume import CONFIDENCE_UNITS, BlockVolume

BATCH_BLOCKS = 1024
POINTS_PER_SIDE = 9
POINTS = POINTS_PER_SIDE**3
CELLS = 512
DeviceOutput = Any  # an instance of the Warp struct `kernels.Output`, which is not a class
NO_VERTICES = np.zeros((0, 3), np.float32)
NO_COLOURS = np.zeros((0, 3), np.uint8)
NO_FACES = np.zeros((0, 3), np.int32)


@dataclass(frozen=True, eq=False)
class BlockSurface:
    """The triangles of one block's cells; vertices in world units, welded within the block."""

    index: BlockIndex
    vertices: Float32[np.ndarray, "v 3"]
    colours: UInt8[np.ndarray, "v 3"]
    faces: Int32[np.ndarray, "f 3"]


class SurfaceExtractor:
    """Marching cubes over blocks; neighbours compute the same rim vertices, bit for bit."""

    def __init__(self, launcher: Launcher, min_weight: float) -> None:
        self._launcher = launcher
        self._min_weight = max(1, round(min_weight * CONFIDENCE_UNITS))
        self._tables = kernels.Tables()
        self._tables.triangle_count = self._constant(tables.triangle_count_table())
        self._tables.edges = self._constant(tables.edge_table())
        self._tables.edge_offset = self._constant(tables.edge_offset_table(POINTS_PER_SIDE))
        self._batch = kernels.Batch()
        for name, (tail, dtype) in PER_BATCH_BLOCK.items():
            shape = (BATCH_BLOCKS, *tail)
            setattr(self._batch, name, wp.zeros(shape, dtype=dtype, device=launcher.device))

    def surfaces(
        self, volume: BlockVolume, blocks: Int32[np.ndarray, "b"]
    ) -> Iterator[BlockSurface]:
        """Yield the surface of each of `blocks`, in their order; one without any has no faces."""
        for start in range(0, len(blocks), BATCH_BLOCKS):
            yield from self._batch_surfaces(volume, blocks[start : start + BATCH_BLOCKS])

    def _batch_surfaces(
        self, volume: BlockVolume, blocks: Int32[np.ndarray, "b"]
    ) -> Iterator[BlockSurface]:
        on_device = self._constant(blocks)
        inputs = [volume.state, on_device, self._min_weight, self._tables, self._batch]
        self._launcher.sliced(kernels.count_surface, len(blocks), inputs)
        vertex_ends = np.cumsum(self._batch.vertex_count.numpy()[: len(blocks)], dtype=np.int32)
        face_ends = np.cumsum(self._batch.face_count.numpy()[: len(blocks)], dtype=np.int32)
        out = self._output(volume.voxel, vertex_ends, face_ends)
        inputs = [volume.state, on_device, self._tables, self._batch, out]
        self._launcher.sliced(kernels.emit_surface, len(blocks), inputs)
        vertices, colours, faces = out.vertices.numpy(), out.colours.numpy(), out.faces.numpy()
        v0 = f0 = 0
        ends = zip(vertex_ends.tolist(), face_ends.tolist(), strict=True)
        for index, (v1, f1) in zip(volume.coords(blocks).tolist(), ends, strict=True):
            place = (index[0], index[1], index[2])
            if f0 == f1:
                yield BlockSurface(place, NO_VERTICES, NO_COLOURS, NO_FACES)
                continue
            yield BlockSurface(
                place, vertices[v0:v1].copy(), colours[v0:v1].copy(), faces[f0:f1].copy()
            )
            v0, f0 = v1, f1

    def _output(
        self, voxel: float, vertex_ends: Int32[np.ndarray, "b"], face_ends: Int32[np.ndarray, "b"]
    ) -> DeviceOutput:
        out, device = kernels.Output(), self._launcher.device
        out.voxel = voxel
        out.vertex_start = self._constant(np.concatenate([[0], vertex_ends[:-1]]).astype(np.int32))
        out.face_start = self._constant(np.concatenate([[0], face_ends[:-1]]).astype(np.int32))
        out.vertices = wp.empty((int(vertex_ends[-1]), 3), dtype=wp.float32, device=device)
        out.colours = wp.empty((int(vertex_ends[-1]), 3), dtype=wp.uint8, device=device)
        out.faces = wp.empty((int(face_ends[-1]), 3), dtype=wp.int32, device=device)
        return out

    def _constant(self, values: Int32[np.ndarray, "..."]) -> wp.array:
        return wp.array(values, dtype=wp.int32, device=self._launcher.device)


PER_BATCH_BLOCK: dict[str, tuple[tuple[int, ...], type]] = {
    "neighbour": ((8,), wp.int32),
    "sdf": ((POINTS,), wp.float32),
    "inside": ((81,), wp.int32),
    "known": ((81,), wp.int32),
    "vertex_of_edge": ((3 * POINTS,), wp.int16),
    "edge_of_vertex": ((3 * POINTS,), wp.int16),
    "cell": ((CELLS,), wp.int16),
    "case_of_cell": ((CELLS,), wp.uint8),
    "cell_count": ((), wp.int32),
    "vertex_count": ((), wp.int32),
    "face_count": ((), wp.int32),
}
