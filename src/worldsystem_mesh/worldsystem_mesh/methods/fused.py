# SPDX-License-Identifier: Apache-2.0
"""Between the volume and the methods: samples with their rims out, code of blocks in."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Int, Int32

from worldsystem_core import mesh_code
from worldsystem_core.marching_cubes import triangle_count_table
from worldsystem_mesh.cells import SurfaceCells
from worldsystem_mesh.kernels_volume import SDF_UNITS
from worldsystem_mesh.methods.fields import FusedSamples
from worldsystem_mesh.volume import BlockVolume

_UNKNOWN = -32768
_SAME_SHARE = 132
"""Shares (of 65536) that count as the same: 1/500 voxel, which is how finely voxels are kept."""


def fused_samples(volume: BlockVolume, index: Int32[np.ndarray, "b 3"]) -> FusedSamples:
    """The 9³ samples of blocks as last fused; the last ones are their upper neighbours' first.
    Of blocks that were forgotten nothing is known."""
    distances = np.full((len(index), 9, 9, 9), np.nan, np.float32)
    colours = np.zeros((len(index), 9, 9, 9, 3), np.uint8)
    for corner in range(8):
        step = np.array([corner & 1, corner >> 1 & 1, corner >> 2], np.int32)
        ids = volume.numbers(index + step)
        held = np.flatnonzero(ids >= 0)
        held = held[volume.pool.holds(ids[held])]  # looked at, a forgotten one would get voxels
        zs, ys, xs = (slice(8, 9) if d else slice(0, 8) for d in step[::-1])
        z, y, x = (slice(0, 1) if d else slice(0, 8) for d in step[::-1])
        for some in _fitting(held, volume):
            raw, rgb = volume.samples(ids[some]), volume.colours(ids[some])
            steps = np.where(raw == 0, 1, raw).astype(np.float32)  # no known distance is 0
            known = np.where(raw == _UNKNOWN, np.nan, steps / SDF_UNITS)
            distances[some, zs, ys, xs] = known[:, z, y, x]
            colours[some, zs, ys, xs] = rgb[:, z, y, x]
    return FusedSamples(distances, colours)


def _fitting(held: Int[np.ndarray, "h"], volume: BlockVolume) -> Iterator[Int[np.ndarray, "n"]]:
    """So many at a time as may be in memory at once."""
    for start in range(0, len(held), volume.slot_limit):
        yield held[start : start + volume.slot_limit]


def with_face_counts(cells: mesh_code.cells.SurfaceCells) -> SurfaceCells:
    """The mesher's own columns of a code."""
    triangles = triangle_count_table()[cells.cases]
    counts = np.bincount(cells.block_of_cell(), triangles, minlength=len(cells))
    return SurfaceCells(
        index=cells.index,
        version=cells.version,
        vertex_start=cells.vertex_start.astype(np.int32),
        cell_start=cells.cell_start.astype(np.int32),
        face_counts=counts.astype(np.int32),
        edges=cells.edges,
        shares=cells.shares,
        colours=cells.colours,
        cells=cells.cells,
        cases=cells.cases,
    )


def differing(new: SurfaceCells, old: SurfaceCells) -> Bool[np.ndarray, "b"]:
    """Blocks whose surface is not the same in both, in their order; the blocks are the same."""
    changed = np.ones(len(new), bool)
    for i in range(len(new)):
        v, w = slice(*new.vertex_start[i : i + 2]), slice(*old.vertex_start[i : i + 2])
        c, d = slice(*new.cell_start[i : i + 2]), slice(*old.cell_start[i : i + 2])
        same = np.array_equal(new.cells[c], old.cells[d])
        same = same and np.array_equal(new.cases[c], old.cases[d])
        if same:
            apart = new.shares[v].astype(np.int32) - old.shares[w]
            changed[i] = len(apart) > 0 and int(np.abs(apart).max()) > _SAME_SHARE
    return changed
