# SPDX-License-Identifier: Apache-2.0
"""Warp kernels of the extraction: sample, count and emit.

Block b's cells need the 9³ samples that begin at its low corner; points of that lattice are
numbered x fastest, and edge 3 p + a starts at point p along axis a. A surface is kept as its code:
the crossed cells and their marching-cubes cases, and per vertex its edge, its share of the edge and
its colour. Twins in plain numpy: `reference.surface`.
"""
# mypy: disable-error-code="untyped-decorator, misc, index"

from __future__ import annotations

import warp as wp

from worldsystem_mesh.kernels_volume import (
    UNKNOWN,
    Volume,
    block_key,
    find_block,
    level_of,
)

wp.set_module_options({"enable_backward": False, "max_unroll": 1})

SHARE_STEPS = 65536.0
SHARE_MARGIN = 64.0
"""Vertices keep this many steps (0.001 of an edge) off its ends, so that no two coincide."""


@wp.struct
class Tables:
    """Marching cubes, per case: its triangles with the edges of their corners, and each of these
    edges once, in the order in which the triangles first name it. Edges are relative to the cell's
    first."""

    triangle_count: wp.array[wp.int32]
    triangle: wp.array2d[wp.vec3i]
    edge_count: wp.array[wp.int32]
    edge: wp.array2d[wp.int32]


@wp.struct
class Batch:
    """What counting leaves for emitting, per block of the batch; `slots` are those of the block
    and its seven upper neighbours, `inside` and `known` bit masks per row of nine samples."""

    slots: wp.array2d[wp.int32]
    inside: wp.array2d[wp.int16]
    known: wp.array2d[wp.int16]
    vertex_of_edge: wp.array2d[wp.int16]
    edge_of_vertex: wp.array2d[wp.uint16]
    cell: wp.array2d[wp.uint16]
    case_of_cell: wp.array2d[wp.uint8]
    cell_count: wp.array[wp.int32]
    vertex_count: wp.array[wp.int32]
    face_count: wp.array[wp.int32]


@wp.struct
class Code:
    """The surface of the batch: block i owns vertices and cells from its starts on.

    `fingerprint` sums hashes of all that block i emitted.
    """

    vertex_start: wp.array[wp.int32]
    cell_start: wp.array[wp.int32]
    edges: wp.array[wp.uint16]
    shares: wp.array[wp.uint16]
    colours: wp.array[wp.vec3ub]
    cells: wp.array[wp.uint16]
    cases: wp.array[wp.uint8]
    fingerprint: wp.array[wp.int64]


@wp.func
def rim_index(x: wp.int32, y: wp.int32, z: wp.int32) -> wp.int32:
    """Where `Volume.rim` keeps a sample with x, y or z = 0."""
    if z == 0:
        return y * 8 + x
    if y == 0:
        return 56 + z * 8 + x
    return 112 + z * 7 + y


@wp.func
def sample(
    sdf: wp.array2d[wp.int16], rim: wp.array2d[wp.int16], s: wp.int32, at: wp.vec3i
) -> wp.float32:
    """Distance of a known voxel of slot s as it is drawn: never 0."""
    x = at[0]
    y = at[1]
    z = at[2]
    if x == 0 or y == 0 or z == 0:
        return float(rim[s, rim_index(x, y, z)])
    held = float(sdf[s, (z * 8 + y) * 8 + x])
    return wp.where(held == 0.0, 1.0, held)


@wp.kernel
def find_slots(volume: Volume, blocks: wp.array[wp.int32], batch: Batch) -> None:
    """Slots of each block and of its seven upper neighbours; negative where there is none."""
    i, corner = wp.tid()
    b = blocks[i]
    if corner == 0:
        batch.slots[i, 0] = volume.slot[b]
        return
    key = block_key(
        volume.coords[b, 0] + (corner & 1),
        volume.coords[b, 1] + ((corner >> 1) & 1),
        volume.coords[b, 2] + (corner >> 2),
    )
    upper = find_block(volume.keys, volume.block_of_key, key)
    batch.slots[i, corner] = wp.int32(-1)
    if upper >= 0:
        batch.slots[i, corner] = volume.slot[upper]


# Eight neighbours at once: loops of a known length, which a compiler makes vector instructions of.
VOXEL_BITS = """
    using namespace wp;
    const uint32* held = &index(paint, s, o);
    const int16* at = &index(sdf, s, o);
    int known = 0, inside = 0;
    for (int x = 0; x < 8; ++x) known |= (held[x] >= least ? 1 : 0) << x;
    for (int x = 0; x < 8; ++x) inside |= (at[x] < 0 ? 1 : 0) << x;
    return known | ((known & inside) << 8);
"""
RIM_BITS = """
    using namespace wp;
    const int16* at = &index(rim, s, o);
    int known = 0, inside = 0;
    for (int x = 0; x < 8; ++x) known |= (at[x] != 0 ? 1 : 0) << x;
    for (int x = 0; x < 8; ++x) inside |= (at[x] < 0 ? 1 : 0) << x;
    return known | (inside << 8);
"""


@wp.func_native(VOXEL_BITS)
def voxel_bits(
    sdf: wp.array2d[wp.int16],
    paint: wp.array2d[wp.uint32],
    s: wp.int32,
    o: wp.int32,
    least: wp.uint32,
) -> wp.int32:
    """Which of the eight voxels from `o` on are known (low byte), their paint being at least
    `least` because the weight is its highest byte, and inside (high byte)."""


@wp.func_native(RIM_BITS)
def rim_bits(rim: wp.array2d[wp.int16], s: wp.int32, o: wp.int32) -> wp.int32:
    """The same of eight rim samples from `o` on; `UNKNOWN` is 0."""


@wp.kernel
def sample_rows(first: wp.int32, volume: Volume, batch: Batch, lanes: wp.int32) -> None:
    """Who is inside and who is known in the rows of nine samples; `lanes` threads share a block."""
    i, lane = wp.tid()
    i = first + i
    sdf = volume.voxels.sdf
    rim = volume.voxels.rim
    paint = volume.voxels.paint
    least = wp.uint32(volume.voxels.min_weight) << wp.uint32(24)
    row = lane
    while row < 81:
        z = row // 9
        y = row - z * 9
        corner = ((y >> 3) << 1) | ((z >> 3) << 2)
        s = batch.slots[i, corner]
        y = y & 7
        z = z & 7
        bits = wp.int32(0)
        if s >= 0:
            base = rim_index(0, y, z)
            if y == 0 or z == 0:
                bits = rim_bits(rim, s, base)
            else:
                first_held = wp.int32(rim[s, base])
                bits = voxel_bits(sdf, paint, s, (z * 8 + y) * 8, least) & 0xFEFE
                bits = bits | wp.where(first_held != UNKNOWN, 1, 0)
                bits = bits | wp.where(first_held < 0, 256, 0)
        known = bits & 255
        inside = bits >> 8
        far = batch.slots[i, corner | 1]
        if far >= 0:
            held = wp.int32(rim[far, rim_index(0, y, z)])
            known = known | wp.where(held != UNKNOWN, 256, 0)
            inside = inside | wp.where(held < 0, 256, 0)
        batch.inside[i, row] = wp.int16(inside)
        batch.known[i, row] = wp.int16(known)
        row += lanes


@wp.func
def crossed_cells(inside: wp.vec4i, known: wp.int32) -> wp.int32:
    """Bit mask of the eight cells between four rows whose corners are known and differ in sign."""
    any_in = inside[0] | inside[1] | inside[2] | inside[3]
    all_in = inside[0] & inside[1] & inside[2] & inside[3]
    whole = known & (known >> 1) & 255
    return (any_in | (any_in >> 1)) & ~(all_in & (all_in >> 1)) & whole


@wp.func
def rows_around(rows: wp.array2d[wp.int16], i: wp.int32, row: wp.int32) -> wp.vec4i:
    """The four rows of samples around a row of cells."""
    return wp.vec4i(
        wp.int32(rows[i, row]),
        wp.int32(rows[i, row + 1]),
        wp.int32(rows[i, row + 9]),
        wp.int32(rows[i, row + 10]),
    )


@wp.func
def cell_case(inside: wp.vec4i, x: wp.int32) -> wp.int32:
    low = ((inside[0] >> x) & 3) | (((inside[1] >> x) & 3) << 2)
    return low | (((inside[2] >> x) & 3) << 4) | (((inside[3] >> x) & 3) << 6)


@wp.kernel
def count_surface(first: wp.int32, tables: Tables, batch: Batch) -> None:
    """List the cells that the surface crosses, number their vertices, count their triangles.

    Rows of nine samples are bit masks, so that empty rows of cells are refused at once.
    """
    i = first + wp.tid()
    rows_inside = batch.inside
    rows_known = batch.known
    vertex_of_edge = batch.vertex_of_edge
    edge_of_vertex = batch.edge_of_vertex
    triangle_count = tables.triangle_count
    edge_count = tables.edge_count
    edge_of_case = tables.edge
    cells = wp.int32(0)
    vertices = wp.int32(0)
    faces = wp.int32(0)
    for yz in range(64):
        row = (yz >> 3) * 9 + (yz & 7)
        inside = rows_around(rows_inside, i, row)
        if (inside[0] | inside[1] | inside[2] | inside[3]) != 0:
            known = rows_around(rows_known, i, row)
            crossed = crossed_cells(inside, known[0] & known[1] & known[2] & known[3])
            if crossed != 0 and cells == 0:
                for edge in range(2187):
                    vertex_of_edge[i, edge] = wp.int16(-1)
            x = wp.int32(0)
            while (crossed >> x) != 0:
                if ((crossed >> x) & 1) != 0:
                    point = row * 9 + x
                    case = cell_case(inside, x)
                    batch.cell[i, cells] = wp.uint16(point)
                    batch.case_of_cell[i, cells] = wp.uint8(case)
                    cells += 1
                    faces += triangle_count[case]
                    for e in range(edge_count[case]):
                        edge = point * 3 + edge_of_case[case, e]
                        if vertex_of_edge[i, edge] < wp.int16(0):
                            vertex_of_edge[i, edge] = wp.int16(vertices)
                            edge_of_vertex[i, vertices] = wp.uint16(edge)
                            vertices += 1
                x += 1
    batch.cell_count[i] = cells
    batch.vertex_count[i] = vertices
    batch.face_count[i] = faces


@wp.func
def colour_at(paint: wp.array2d[wp.uint32], s: wp.int32, at: wp.vec3i) -> wp.vec3:
    held = paint[s, (at[2] * 8 + at[1]) * 8 + at[0]]
    return wp.vec3(float(level_of(held, 0)), float(level_of(held, 1)), float(level_of(held, 2)))


@wp.func
def colour_between(a: wp.vec3, b: wp.vec3, share: wp.float32) -> wp.vec3:
    """Colour between two voxels; a black one has none and does not count."""
    if b[0] + b[1] + b[2] == 0.0:
        return a
    if a[0] + a[1] + a[2] == 0.0:
        return b
    return a + (b - a) * share


@wp.func
def fingerprint_of(place: wp.int32, a: wp.int64, b: wp.int64) -> wp.int64:
    h = wp.int64(place) * wp.int64(-7046029254386353131)
    h = (h ^ a) * wp.int64(-4658895280553007687)
    h = (h ^ (h >> wp.int64(29)) ^ b) * wp.int64(-7723592293110705685)
    return h ^ (h >> wp.int64(32))


@wp.func
def corner_of(at: wp.vec3i) -> wp.int32:
    """Which of the block (0) and its upper neighbours (1..7) holds a point of the 9³ lattice."""
    return (at[0] >> 3) | ((at[1] >> 3) << 1) | ((at[2] >> 3) << 2)


@wp.func
def within(at: wp.vec3i) -> wp.vec3i:
    return wp.vec3i(at[0] & 7, at[1] & 7, at[2] & 7)


@wp.func
def emit_cells(batch: Batch, code: Code, i: wp.int32, lane: wp.int32, lanes: wp.int32) -> wp.int64:
    """Write the crossed cells of block i and their cases; return their part of the fingerprint."""
    listed = batch.cell
    case_of_cell = batch.case_of_cell
    cells = code.cells
    cases = code.cases
    c0 = code.cell_start[i]
    total = wp.int64(0)
    c = lane
    count = batch.cell_count[i]
    while c < count:
        cell = listed[i, c]
        case = case_of_cell[i, c]
        cells[c0 + c] = cell
        cases[c0 + c] = case
        total += fingerprint_of(~c, wp.int64(cell), wp.int64(case))
        c += lanes
    return total


@wp.kernel
def emit_surface(
    first: wp.int32, volume: Volume, batch: Batch, code: Code, lanes: wp.int32
) -> None:
    """Write the code of block i; `lanes` threads share a block's vertices and cells.

    A vertex lies where the distance is 0 and has the colour there.
    """
    i, lane = wp.tid()
    i = first + i
    # arrays and numbers that do not change, once: what is stored could be them, for all a compiler
    # knows
    sdf = volume.voxels.sdf
    rim = volume.voxels.rim
    paint = volume.voxels.paint
    slots = batch.slots
    edges = code.edges
    shares = code.shares
    colours = code.colours
    vertices = batch.vertex_count[i]
    v0 = code.vertex_start[i]
    total = wp.int64(0)
    m = lane
    while m < vertices:
        edge = wp.int32(batch.edge_of_vertex[i, m])
        point = edge // 3
        axis = edge - point * 3
        z = point // 81
        y = (point - z * 81) // 9
        low = wp.vec3i(point - z * 81 - y * 9, y, z)
        high = wp.vec3i(
            low[0] + wp.where(axis == 0, 1, 0),
            low[1] + wp.where(axis == 1, 1, 0),
            low[2] + wp.where(axis == 2, 1, 0),
        )
        q0 = slots[i, corner_of(low)]
        q1 = slots[i, corner_of(high)]
        s0 = sample(sdf, rim, q0, within(low))
        share = s0 / (s0 - sample(sdf, rim, q1, within(high)))
        a = colour_at(paint, q0, within(low))
        colour = colour_between(a, colour_at(paint, q1, within(high)), share)
        steps = wp.clamp(share * SHARE_STEPS + 0.5, SHARE_MARGIN, SHARE_STEPS - SHARE_MARGIN)
        edges[v0 + m] = wp.uint16(edge)
        shares[v0 + m] = wp.uint16(wp.int32(steps))
        red = wp.int32(colour[0] + 0.5)
        green = wp.int32(colour[1] + 0.5)
        blue = wp.int32(colour[2] + 0.5)
        colours[v0 + m] = wp.vec3ub(wp.uint8(red), wp.uint8(green), wp.uint8(blue))
        shade = (red << 16) | (green << 8) | blue
        place = wp.int64(edge) | (wp.int64(wp.int32(steps)) << wp.int64(16))
        total += fingerprint_of(m, place, wp.int64(shade))
        m += lanes
    total += emit_cells(batch, code, i, lane, lanes)
    wp.atomic_add(code.fingerprint, i, total)
