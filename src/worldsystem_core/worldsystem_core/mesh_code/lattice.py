# SPDX-License-Identifier: Apache-2.0
"""The code of level 0: which cells are crossed, which corners are inside, where edges are cut.

The idea of sending marching-cubes cases instead of triangles: Stotko et al., "SLAMCast", TVCG
25(5), 2019. Here only the signs of the corners are sent, once for all the cells that share one,
and every vertex once for all the blocks that share it.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int, Int32, UInt8, UInt16

from worldsystem_core.errors import ProtocolError
from worldsystem_core.mesh_code import colours
from worldsystem_core.mesh_code.cells import (
    EDGES,
    POINTS,
    SurfaceCells,
    case_edges,
    edge_points,
)
from worldsystem_core.mesh_code.container import (
    Head,
    SectionReader,
    bits_section,
    blocks_section,
    differences,
    packed,
    sums,
    take_blocks,
)
from worldsystem_core.mesh_code.sharing import first_of_each, place_keys

OFFSET_BITS = 6
_FIRST_OFFSET = 1 << (OFFSET_BITS - 1)
_SHIFT = 16 - OFFSET_BITS
_MASK_BYTES = 64
_CORNER_POINTS = np.array(
    [(c & 1) + POINTS * (c >> 1 & 1) + POINTS**2 * (c >> 2) for c in range(8)]
)


def encode_lattice(surface: SurfaceCells, voxel: float) -> bytes:
    """The code of `surface`; offsets in 1/64 of an edge, colours in six bits a channel.

    Rim vertices are taken to be the same in all blocks; a block for which that is not so (it was
    extracted at another time) is marked as private and gets all of its own.
    """
    order = np.lexsort((surface.edges, surface.block_of_vertex()))
    block, edges = surface.block_of_vertex()[order], surface.edges[order]
    offsets = surface.shares[order].astype(np.int64) >> _SHIFT
    colour = colours.quantised(surface.colours[order])
    keys = _edge_keys(surface.index, block, edges)
    private = _private_blocks(keys, block, np.column_stack([offsets, colour]), len(surface))
    written = first_of_each(keys, private[block]) == np.arange(len(keys))
    sections = [
        blocks_section(surface.index, surface.version),
        bits_section(private),
        _cell_masks(surface),
        bits_section(_corner_signs(surface)),
        _offset_steps(offsets[written], edges[written]),
    ]
    sections += [differences(colour[written, channel]) for channel in range(3)]
    return packed(Head(level=0, block_count=len(surface), voxel=voxel), sections)


def decode_lattice(head: Head, reader: SectionReader) -> SurfaceCells:
    """The surface as coded; raises `ProtocolError` when the code is damaged."""
    index, version = take_blocks(reader, head.block_count)
    private = reader.take_bits(head.block_count).astype(bool)
    cell_block, cells, cases = _take_cells(reader, head.block_count)
    block, edges = _crossed_edges(cell_block, cells, cases)
    count = np.bincount(block, minlength=head.block_count)
    first = first_of_each(_edge_keys(index, block, edges), private[block])
    written = first == np.arange(len(edges))
    offsets = _take_offsets(reader, edges[written])
    rgb = take_colours(reader, len(offsets))
    reader.end()
    row = (np.cumsum(written) - 1)[first]
    shares = ((2 * offsets + 1) << (_SHIFT - 1)).astype(np.uint16)
    return SurfaceCells(
        index=index,
        version=version,
        vertex_start=np.concatenate([[0], np.cumsum(count)]),
        cell_start=np.searchsorted(cell_block, np.arange(head.block_count + 1)),
        edges=edges,
        shares=shares[row],
        colours=rgb[row],
        cells=cells,
        cases=cases,
    )


def take_colours(reader: SectionReader, count: int) -> UInt8[np.ndarray, "n 3"]:
    """The three sections of colour."""
    channels = [sums(reader.take(count), signed=channel > 0) for channel in range(3)]
    return colours.restored(np.stack(channels, axis=-1))


def _edge_keys(
    index: Int32[np.ndarray, "b 3"], block: Int[np.ndarray, "n"], edges: UInt16[np.ndarray, "n"]
) -> Int[np.ndarray, "n"]:
    keys = place_keys(index, block, edge_points(edges), POINTS - 1)
    return np.asarray(3 * keys + edges % 3)


def _private_blocks(
    keys: Int[np.ndarray, "n"],
    block: Int[np.ndarray, "n"],
    values: Int[np.ndarray, "n 4"],
    count: int,
) -> Bool[np.ndarray, "b"]:
    """Blocks with a rim vertex that another block of the code has differently."""
    first = first_of_each(keys, np.zeros(len(keys), bool))
    differs = (values != values[first]).any(axis=1)
    private = np.zeros(count, bool)
    private[block[differs]] = True
    private[block[first[differs]]] = True
    return private


def _cell_masks(surface: SurfaceCells) -> UInt8[np.ndarray, "n"]:
    """One bit for each of a block's 8³ cells, x fastest."""
    mask = np.zeros((len(surface), 8, 8, 8), bool)
    p = surface.cells.astype(np.int64)
    mask[surface.block_of_cell(), p // POINTS**2, p // POINTS % POINTS, p % POINTS] = True
    return bits_section(mask)


def _corner_signs(surface: SurfaceCells) -> Bool[np.ndarray, "n"]:
    """Whether each point at a crossed cell's corner is inside, block by block, point by point."""
    block = surface.block_of_cell()[:, None]
    points = surface.cells.astype(np.int64)[:, None] + _CORNER_POINTS
    corner = np.zeros((len(surface), POINTS**3), bool)
    inside = np.zeros_like(corner)
    corner[block, points] = True
    inside[block, points] = (surface.cases[:, None] >> np.arange(8)) & 1
    return np.asarray(inside[corner])


def _take_cells(
    reader: SectionReader, count: int
) -> tuple[Int[np.ndarray, "C"], UInt16[np.ndarray, "C"], UInt8[np.ndarray, "C"]]:
    """Block, low point and case of every crossed cell."""
    mask = reader.take_bits(8 * _MASK_BYTES * count).reshape(count, 8, 8, 8)
    block, z, y, x = np.nonzero(mask)
    cells = x + POINTS * y + POINTS**2 * z
    points = cells[:, None] + _CORNER_POINTS
    corner = np.zeros((count, POINTS**3), bool)
    corner[block[:, None], points] = True
    inside = np.zeros(corner.shape, np.uint8)
    inside[corner] = reader.take_bits(int(corner.sum()))
    cases = np.packbits(inside[block[:, None], points], axis=1, bitorder="little")[:, 0]
    if len(cases) and not 0 < cases.min() <= cases.max() < 255:
        raise ProtocolError("damaged mesh code: a cell that the surface does not cross")
    return block, cells.astype(np.uint16), cases


def _crossed_edges(
    block: Int[np.ndarray, "C"], cells: UInt16[np.ndarray, "C"], cases: UInt8[np.ndarray, "C"]
) -> tuple[Int[np.ndarray, "n"], UInt16[np.ndarray, "n"]]:
    """The edges that carry vertices, ascending, each with its block."""
    edges, valid = case_edges(cells, cases)
    keys = np.unique((block[:, None] * EDGES + edges)[valid])
    return keys // EDGES, (keys % EDGES).astype(np.uint16)


def _offset_steps(
    offsets: Int[np.ndarray, "n"], edges: UInt16[np.ndarray, "n"]
) -> UInt8[np.ndarray, "n"]:
    """Each offset less that of the vertex before on an edge of the same axis, in six bits."""
    steps = np.zeros(len(offsets), np.uint8)
    for axis in range(3):
        here = edges % 3 == axis
        steps[here] = np.diff(offsets[here], prepend=_FIRST_OFFSET) & 63
    return steps


def _take_offsets(reader: SectionReader, edges: UInt16[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
    """Inverse of `_offset_steps`."""
    steps = reader.take(len(edges)).astype(np.int64)
    offsets = np.zeros(len(edges), np.int64)
    for axis in range(3):
        here = edges % 3 == axis
        offsets[here] = (np.cumsum(steps[here]) + _FIRST_OFFSET) & 63
    return offsets
