# SPDX-License-Identifier: Apache-2.0
"""Warp kernels of the extraction: count the surface of a batch of blocks, then emit it.

One thread per block. Block b's cells need the 9³ samples that begin at its low corner; points of
that lattice are numbered x fastest, and edge 3 p + a starts at point p along axis a.
Twin in plain numpy: `reference.surface`.
"""
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import warp as wp

from worldsystem_mesh.kernels_volume import SDF_UNITS, Volume, block_key, find_block

wp.set_module_options({"enable_backward": False})

EDGE_MARGIN = 0.001
"""Vertices keep this share of an edge off its ends, so that no two of them coincide."""


@wp.struct
class Tables:
    """Marching cubes: triangles per case, edges per case, edge numbers relative to a cell."""

    triangle_count: wp.array[wp.int32]
    edges: wp.array2d[wp.int32]
    edge_offset: wp.array[wp.int32]


@wp.struct
class Batch:
    """What counting leaves for emitting, per block of the batch."""

    neighbour: wp.array2d[wp.int32]
    sdf: wp.array2d[wp.float32]
    inside: wp.array2d[wp.int32]
    known: wp.array2d[wp.int32]
    vertex_of_edge: wp.array2d[wp.int16]
    edge_of_vertex: wp.array2d[wp.int16]
    cell: wp.array2d[wp.int16]
    case_of_cell: wp.array2d[wp.uint8]
    cell_count: wp.array[wp.int32]
    vertex_count: wp.array[wp.int32]
    face_count: wp.array[wp.int32]


@wp.struct
class Output:
    """Where block i of the batch writes, and how long a voxel edge is [world units]."""

    voxel: wp.float32
    vertex_start: wp.array[wp.int32]
    face_start: wp.array[wp.int32]
    vertices: wp.array2d[wp.float32]
    colours: wp.array2d[wp.uint8]
    faces: wp.array2d[wp.int32]


@wp.func
def voxel_offset(x: wp.int32, y: wp.int32, z: wp.int32) -> wp.int32:
    return ((z & 7) * 8 + (y & 7)) * 8 + (x & 7)


@wp.func
def find_neighbours(volume: Volume, b: wp.int32, batch: Batch, i: wp.int32) -> None:
    for corner in range(8):
        key = block_key(
            volume.coords[b, 0] + (corner & 1),
            volume.coords[b, 1] + ((corner >> 1) & 1),
            volume.coords[b, 2] + (corner >> 2),
        )
        batch.neighbour[i, corner] = find_block(volume, key)


@wp.func
def load_samples(volume: Volume, batch: Batch, i: wp.int32, min_weight: wp.int32) -> wp.bool:
    """Fetch the 9³ samples and, per row, who is inside and who is known; whether signs differ."""
    some_inside = wp.int32(0)
    some_outside = wp.int32(0)
    for row in range(81):
        z = row // 9
        y = row - z * 9
        inside = wp.int32(0)
        known = wp.int32(0)
        for x in range(9):
            q = batch.neighbour[i, (x >> 3) | ((y >> 3) << 1) | ((z >> 3) << 2)]
            if q >= 0:
                o = voxel_offset(x, y, z)
                weight = wp.int32(volume.weight[q, o])
                if weight >= min_weight:
                    total = volume.sdf_sum[q, o]
                    batch.sdf[i, row * 9 + x] = float(total) / (float(weight) * SDF_UNITS)
                    known = known | (1 << x)
                    inside = inside | (wp.where(total < 0, 1, 0) << x)
        batch.inside[i, row] = inside
        batch.known[i, row] = known
        some_inside = some_inside | inside
        some_outside = some_outside | (known & ~inside)
    return some_inside != 0 and some_outside != 0


@wp.func
def crossed_cells(batch: Batch, i: wp.int32, row: wp.int32) -> wp.int32:
    """Bit mask of the eight cells of a row whose corners are all known and differ in sign."""
    any_in = batch.inside[i, row] | batch.inside[i, row + 1]
    any_in = any_in | batch.inside[i, row + 9] | batch.inside[i, row + 10]
    all_in = batch.inside[i, row] & batch.inside[i, row + 1]
    all_in = all_in & batch.inside[i, row + 9] & batch.inside[i, row + 10]
    whole = batch.known[i, row] & batch.known[i, row + 1]
    whole = whole & batch.known[i, row + 9] & batch.known[i, row + 10]
    return (any_in | (any_in >> 1)) & ~(all_in & (all_in >> 1)) & whole & (whole >> 1) & 255


@wp.func
def cell_case(batch: Batch, i: wp.int32, row: wp.int32, x: wp.int32) -> wp.int32:
    low = ((batch.inside[i, row] >> x) & 3) | (((batch.inside[i, row + 1] >> x) & 3) << 2)
    high = ((batch.inside[i, row + 9] >> x) & 3) | (((batch.inside[i, row + 10] >> x) & 3) << 2)
    return low | (high << 4)


@wp.func
def add_cell(tables: Tables, batch: Batch, i: wp.int32, point: wp.int32, case: wp.int32) -> None:
    """Append a crossed cell; number those of its vertices that have no number yet."""
    batch.cell[i, batch.cell_count[i]] = wp.int16(point)
    batch.case_of_cell[i, batch.cell_count[i]] = wp.uint8(case)
    batch.cell_count[i] = batch.cell_count[i] + 1
    batch.face_count[i] = batch.face_count[i] + tables.triangle_count[case]
    for corner in range(3 * tables.triangle_count[case]):
        edge = point * 3 + tables.edge_offset[tables.edges[case, corner]]
        if batch.vertex_of_edge[i, edge] < wp.int16(0):
            vertex = batch.vertex_count[i]
            batch.vertex_of_edge[i, edge] = wp.int16(vertex)
            batch.edge_of_vertex[i, vertex] = wp.int16(edge)
            batch.vertex_count[i] = vertex + 1


@wp.kernel
def count_surface(
    first: wp.int32,
    volume: Volume,
    blocks: wp.array[wp.int32],
    min_weight: wp.int32,
    tables: Tables,
    batch: Batch,
) -> None:
    """List the cells that the surface crosses, number their vertices, count their triangles.

    Rows of nine samples become bit masks, so that empty rows of cells are refused at once.
    """
    i = first + wp.tid()
    batch.cell_count[i] = 0
    batch.vertex_count[i] = 0
    batch.face_count[i] = 0
    find_neighbours(volume, blocks[i], batch, i)
    if not load_samples(volume, batch, i, min_weight):
        return
    for edge in range(2187):
        batch.vertex_of_edge[i, edge] = wp.int16(-1)
    for yz in range(64):
        row = (yz >> 3) * 9 + (yz & 7)
        crossed = crossed_cells(batch, i, row)
        x = wp.int32(0)
        while (crossed >> x) != 0:
            if ((crossed >> x) & 1) != 0:
                add_cell(tables, batch, i, row * 9 + x, cell_case(batch, i, row, x))
            x += 1


@wp.func
def mean_colour(volume: Volume, b: wp.int32, o: wp.int32) -> wp.vec3:
    """Mean colour of a voxel; black when it has none."""
    weight = wp.max(float(volume.colour_weight[b, o]), 1.0)
    return (
        wp.vec3(
            float(volume.colour_sum[b, o, 0]),
            float(volume.colour_sum[b, o, 1]),
            float(volume.colour_sum[b, o, 2]),
        )
        / weight
    )


@wp.func
def blended_colour(
    volume: Volume, b0: wp.int32, o0: wp.int32, b1: wp.int32, o1: wp.int32, share: wp.float32
) -> wp.vec3:
    """Colour between two voxels; one without a colour does not count."""
    far = share
    if volume.colour_weight[b1, o1] == wp.uint16(0):
        far = 0.0
    elif volume.colour_weight[b0, o0] == wp.uint16(0):
        far = 1.0
    return mean_colour(volume, b0, o0) * (1.0 - far) + mean_colour(volume, b1, o1) * far


@wp.func
def emit_vertex(
    volume: Volume,
    batch: Batch,
    i: wp.int32,
    b: wp.int32,
    edge: wp.int32,
    out: Output,
    at: wp.int32,
) -> None:
    """Write the vertex on an edge: where the distance is 0, with the colour there."""
    point = edge // 3
    axis = edge - point * 3
    z = point // 81
    y = (point - z * 81) // 9
    x = point - z * 81 - y * 9
    dx = wp.where(axis == 0, 1, 0)
    dy = wp.where(axis == 1, 1, 0)
    dz = wp.where(axis == 2, 1, 0)
    s0 = batch.sdf[i, point]
    s1 = batch.sdf[i, point + dx + 9 * dy + 81 * dz]
    share = wp.clamp(s0 / (s0 - s1), EDGE_MARGIN, 1.0 - EDGE_MARGIN)
    out.vertices[at, 0] = (float(volume.coords[b, 0] * 8 + x) + float(dx) * share) * out.voxel
    out.vertices[at, 1] = (float(volume.coords[b, 1] * 8 + y) + float(dy) * share) * out.voxel
    out.vertices[at, 2] = (float(volume.coords[b, 2] * 8 + z) + float(dz) * share) * out.voxel
    b0 = batch.neighbour[i, (x >> 3) | ((y >> 3) << 1) | ((z >> 3) << 2)]
    b1 = batch.neighbour[i, ((x + dx) >> 3) | (((y + dy) >> 3) << 1) | (((z + dz) >> 3) << 2)]
    o1 = voxel_offset(x + dx, y + dy, z + dz)
    colour = blended_colour(volume, b0, voxel_offset(x, y, z), b1, o1, share)
    for channel in range(3):
        out.colours[at, channel] = wp.uint8(wp.int32(colour[channel] + 0.5))


@wp.kernel
def emit_surface(
    first: wp.int32,
    volume: Volume,
    blocks: wp.array[wp.int32],
    tables: Tables,
    batch: Batch,
    out: Output,
) -> None:
    """Write vertices [world units], colours, and faces (numbered within their block)."""
    i = first + wp.tid()
    for m in range(batch.vertex_count[i]):
        edge = wp.int32(batch.edge_of_vertex[i, m])
        emit_vertex(volume, batch, i, blocks[i], edge, out, out.vertex_start[i] + m)
    face = out.face_start[i]
    for c in range(batch.cell_count[i]):
        case = wp.int32(batch.case_of_cell[i, c])
        base = wp.int32(batch.cell[i, c]) * 3
        for t in range(tables.triangle_count[case]):
            for corner in range(3):
                edge = base + tables.edge_offset[tables.edges[case, 3 * t + corner]]
                out.faces[face, corner] = wp.int32(batch.vertex_of_edge[i, edge])
            face += 1
