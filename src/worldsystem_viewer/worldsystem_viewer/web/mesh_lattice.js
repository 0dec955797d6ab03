// SPDX-License-Identifier: Apache-2.0
// Level 0 of the block code: see docs/mesh_code.md.
//
// Cells, corners and edges of a block are handled as rows along x, a bit each: row y + 9 z of its
// points. All that is known of all blocks lies in flat arrays; nothing is allocated for a vertex.

import { CASE_EDGES, EDGE_LOW_CORNER } from "./marching_cubes.js";
import { Homes } from "./mesh_homes.js";

const POINTS = 9;
const ROWS = POINTS * POINTS;
const NEXT_Y = 1;
const NEXT_Z = POINTS;
const EDGES = 3 * POINTS ** 3;
const MOST_EDGES_OF_CELL = 12;

const EDGE_X = Uint8Array.from({ length: EDGES }, (_, edge) => Math.floor(edge / 3) % POINTS);
const EDGE_Y = Uint8Array.from({ length: EDGES }, (_, edge) => Math.floor(edge / (3 * POINTS)) % POINTS);
const EDGE_Z = Uint8Array.from({ length: EDGES }, (_, edge) => Math.floor(edge / (3 * ROWS)));
const EDGE_AXIS = Uint8Array.from({ length: EDGES }, (_, edge) => edge % 3);
// Whether another block can have the edge, too; which of the eight homes it has; its number there.
const IS_RIM = new Uint8Array(EDGES);
const HOME_CORNER = new Uint8Array(EDGES);
const HOME_SLOT = new Uint16Array(EDGES);
const SLOTS = numberRims();

// The edges of all cases one behind the other, as what to add to 3 * (number of a cell's low point).
const CASE_BEGIN = new Uint16Array(257);
const CASE_LIST = listCases();

// Of the block at hand.
const CORNERS = new Uint16Array(ROWS);
const ALONG_X = new Uint16Array(ROWS);
const ALONG_Y = new Uint16Array(ROWS);
const ALONG_Z = new Uint16Array(ROWS);
const INSIDE = new Uint16Array(ROWS + NEXT_Z);
const NUMBER_OF_EDGE = new Int32Array(EDGES);

function numberRims() {
  const slots = new Map();
  for (let edge = 0; edge < EDGES; edge += 1) {
    const at = [EDGE_X[edge], EDGE_Y[edge], EDGE_Z[edge]];
    if (!at.some((k, axis) => axis !== EDGE_AXIS[edge] && k % 8 === 0)) continue;
    const name = [EDGE_AXIS[edge], ...at.map((k) => k % 8)].join();
    if (!slots.has(name)) slots.set(name, slots.size);
    IS_RIM[edge] = 1;
    HOME_CORNER[edge] = at.reduce((corner, k, axis) => corner + ((k >> 3) << axis), 0);
    HOME_SLOT[edge] = slots.get(name);
  }
  return slots.size;
}

function listCases() {
  const list = [];
  CASE_EDGES.forEach((edges, marching) => {
    for (const edge of edges) {
      const corner = EDGE_LOW_CORNER[edge];
      list.push(3 * ((corner & 1) + POINTS * ((corner >> 1) & 1) + ROWS * (corner >> 2)) + (edge >> 2));
    }
    CASE_BEGIN[marching + 1] = list.length;
  });
  return Uint16Array.from(list);
}

// Gives `blocks` their meshes.
export function decodeLattice(reader, blocks, voxel) {
  const privacy = reader.take((blocks.length + 7) >> 3);
  const found = takeCells(reader, blocks.length);
  const written = numberWritten(found, blocks, privacy);
  const offsets = takeOffsets(reader, written);
  const colours = reader.colours(written.count);
  for (let b = 0; b < blocks.length; b += 1) {
    Object.assign(blocks[b], latticeMesh(blocks[b].index, b, { found, rows: written.rows, offsets, colours, voxel }));
  }
}

// Low points and cases of the crossed cells, and the edges that faces use, ascending; block b has
// those from `cellBegin[b]` and `edgeBegin[b]` on.
function takeCells(reader, count) {
  const crossed = reader.take(64 * count);
  const cells = countBits(crossed);
  const found = {
    points: new Uint16Array(cells),
    cases: new Uint8Array(cells),
    cellBegin: new Uint32Array(count + 1),
    edges: new Uint16Array(MOST_EDGES_OF_CELL * cells),
    edgeBegin: new Uint32Array(count + 1),
  };
  let signs = 0;
  for (let b = 0; b < count; b += 1) {
    const own = crossed.subarray(64 * b, 64 * b + 64);
    markRows(own);
    signs = readSigns(reader.bytes, reader.at, signs);
    found.cellBegin[b + 1] = putCells(own, found, found.cellBegin[b]);
    found.edgeBegin[b + 1] = putEdges(found.edges, found.edgeBegin[b]);
  }
  reader.take((signs + 7) >> 3);
  return found;
}

function countBits(bytes) {
  let count = 0;
  for (let i = 0; i < bytes.length; i += 1) for (let left = bytes[i]; left; left &= left - 1) count += 1;
  return count;
}

// The corners and the edges of the crossed cells.
function markRows(crossed) {
  for (const rows of [CORNERS, ALONG_X, ALONG_Y, ALONG_Z]) rows.fill(0);
  for (let i = 0; i < 64; i += 1) {
    const cells = crossed[i];
    if (cells === 0) continue;
    const row = (i & 7) + NEXT_Z * (i >> 3);
    const ends = cells | (cells << 1);
    for (let c = 0; c < 4; c += 1) {
      const beside = row + (c & 1) * NEXT_Y + (c >> 1) * NEXT_Z;
      CORNERS[beside] |= ends;
      ALONG_X[beside] |= cells;
    }
    ALONG_Y[row] |= ends;
    ALONG_Y[row + NEXT_Z] |= ends;
    ALONG_Z[row] |= ends;
    ALONG_Z[row + NEXT_Y] |= ends;
  }
}

// From bit `at` behind byte `from` on; returns the bit behind the last. A code that is too short
// has no signs there, which the caller sees.
function readSigns(bytes, from, at) {
  for (let row = 0; row < ROWS; row += 1) {
    let inside = 0;
    for (let left = CORNERS[row]; left; left &= left - 1) {
      if ((bytes[from + (at >> 3)] >> (at & 7)) & 1) inside |= left & -left;
      at += 1;
    }
    INSIDE[row] = inside;
  }
  return at;
}

function putCells(crossed, { points, cases }, at) {
  for (let i = 0; i < 64; i += 1) {
    const row = (i & 7) + NEXT_Z * (i >> 3);
    for (let left = crossed[i]; left; left &= left - 1) {
      const x = 31 - Math.clz32(left & -left);
      const marching =
        ((INSIDE[row] >> x) & 3) |
        (((INSIDE[row + NEXT_Y] >> x) & 3) << 2) |
        (((INSIDE[row + NEXT_Z] >> x) & 3) << 4) |
        (((INSIDE[row + NEXT_Y + NEXT_Z] >> x) & 3) << 6);
      if (marching === 0 || marching === 255) throw new Error("mesh code has a cell that is not crossed");
      points[at] = x + POINTS * row;
      cases[at++] = marching;
    }
  }
  return at;
}

// Faces use the edges of crossed cells whose ends are on two sides.
function putEdges(edges, at) {
  for (let row = 0; row < ROWS; row += 1) {
    const here = INSIDE[row];
    const x = ALONG_X[row] & (here ^ (here >> 1));
    const y = ALONG_Y[row] & (here ^ INSIDE[row + NEXT_Y]);
    const z = ALONG_Z[row] & (here ^ INSIDE[row + NEXT_Z]);
    for (let left = x | y | z; left; left &= left - 1) {
      const bit = left & -left;
      const edge = 3 * (POINTS * row + 31 - Math.clz32(bit));
      if (x & bit) edges[at++] = edge;
      if (y & bit) edges[at++] = edge + 1;
      if (z & bit) edges[at++] = edge + 2;
    }
  }
  return at;
}

// For each edge the number of its written vertex, and the axes of those.
function numberWritten({ edges, edgeBegin }, blocks, privacy) {
  const homes = new Homes(blocks);
  const rowOfSlot = new Int32Array(SLOTS * homes.count).fill(-1);
  const rows = new Int32Array(edgeBegin[blocks.length]);
  const axes = new Uint8Array(rows.length);
  let count = 0;
  for (let b = 0; b < blocks.length; b += 1) {
    const shares = !((privacy[b >> 3] >> (b & 7)) & 1);
    for (let i = edgeBegin[b]; i < edgeBegin[b + 1]; i += 1) {
      const edge = edges[i];
      if (shares && IS_RIM[edge]) {
        const slot = SLOTS * homes.of(b, HOME_CORNER[edge]) + HOME_SLOT[edge];
        if (rowOfSlot[slot] >= 0) {
          rows[i] = rowOfSlot[slot];
          continue;
        }
        rowOfSlot[slot] = count;
      }
      axes[count] = EDGE_AXIS[edge];
      rows[i] = count++;
    }
  }
  return { rows, axes, count };
}

function takeOffsets(reader, { axes, count }) {
  const steps = reader.take(count);
  const last = Uint8Array.of(32, 32, 32);
  const offsets = new Uint8Array(count);
  for (let i = 0; i < count; i += 1) offsets[i] = last[axes[i]] = (last[axes[i]] + steps[i]) & 63;
  return offsets;
}

// Vertices are numbered in ascending order of their edges.
function latticeMesh(index, b, { found, rows, offsets, colours, voxel }) {
  const { points, cases, cellBegin, edges, edgeBegin } = found;
  const [firstCell, endCell] = [cellBegin[b], cellBegin[b + 1]];
  const used = edges.subarray(edgeBegin[b], edgeBegin[b + 1]);
  for (let i = 0; i < used.length; i += 1) NUMBER_OF_EDGE[used[i]] = i;
  let corners = 0;
  for (let i = firstCell; i < endCell; i += 1) corners += CASE_BEGIN[cases[i] + 1] - CASE_BEGIN[cases[i]];
  const made = emptyMesh(used.length, corners);
  let corner = 0;
  for (let i = firstCell; i < endCell; i += 1) {
    const low = 3 * points[i];
    const end = CASE_BEGIN[cases[i] + 1];
    for (let k = CASE_BEGIN[cases[i]]; k < end; k += 1) made.faces[corner++] = NUMBER_OF_EDGE[low + CASE_LIST[k]];
  }
  const rowsOfUsed = rows.subarray(edgeBegin[b], edgeBegin[b + 1]);
  putVertices(made, used, { index, rows: rowsOfUsed, offsets, colours, voxel });
  return made;
}

// In one buffer: it is one that is allocated and handed from thread to thread, not five.
function emptyMesh(vertices, corners) {
  const buffer = new ArrayBuffer(4 * corners + 28 * vertices);
  const behindFaces = 4 * corners;
  return {
    vertices: new Float32Array(buffer, behindFaces, 3 * vertices),
    colours: new Uint8Array(buffer, behindFaces + 24 * vertices, 3 * vertices),
    faces: new Uint32Array(buffer, 0, corners),
    places: new Int32Array(buffer, behindFaces + 12 * vertices, 3 * vertices),
    rims: new Uint8Array(buffer, behindFaces + 27 * vertices, vertices),
  };
}

function putVertices({ vertices, colours: rgb, places, rims }, used, { index, rows, offsets, colours, voxel }) {
  const [x, y, z] = [8 * index[0], 8 * index[1], 8 * index[2]];
  for (let i = 0, at = 0; i < used.length; i += 1, at += 3) {
    const edge = used[i];
    const row = rows[i];
    const along = at + EDGE_AXIS[edge];
    places[at] = x + EDGE_X[edge];
    places[at + 1] = y + EDGE_Y[edge];
    places[at + 2] = z + EDGE_Z[edge];
    for (let k = at; k < at + 3; k += 1) vertices[k] = places[k] * voxel;
    vertices[along] = (places[along] + (2 * offsets[row] + 1) / 128) * voxel;
    rims[i] = IS_RIM[edge];
    rgb[at] = colours[3 * row];
    rgb[at + 1] = colours[3 * row + 1];
    rgb[at + 2] = colours[3 * row + 2];
  }
}
