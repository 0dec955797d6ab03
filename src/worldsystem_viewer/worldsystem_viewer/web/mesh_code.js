// SPDX-License-Identifier: Apache-2.0
// Decoder of the block code; docs/mesh_code.md is its specification, worldsystem_core/mesh_code its twin.

import { CASE_EDGES, EDGE_LOW_CORNER } from "./marching_cubes.js";

const HEAD_BYTES = 16;
const POINTS = 9;
const CLUSTERS = [0, 5, 3]; // along a block's edge, at levels 1 and 2
const CLUSTER_VOXELS = [0, 2, 4];
const CLUSTER_STEPS = 16;

const EDGES = 3 * POINTS ** 3;
const EDGE_X = Uint8Array.from({ length: EDGES }, (_, edge) => Math.floor(edge / 3) % POINTS);
const EDGE_Y = Uint8Array.from({ length: EDGES }, (_, edge) => Math.floor(edge / (3 * POINTS)) % POINTS);
const EDGE_Z = Uint8Array.from({ length: EDGES }, (_, edge) => Math.floor(edge / (3 * POINTS ** 2)));

const pointAt = (x, y, z) => x + POINTS * (y + POINTS * z);
const CORNER_POINTS = Array.from({ length: 8 }, (_, c) => pointAt(c & 1, (c >> 1) & 1, c >> 2));
// What to add to 3 * (number of a cell's low point) to get the number of each of its edges.
const EDGE_OFFSETS = Array.from(EDGE_LOW_CORNER, (corner, edge) => 3 * CORNER_POINTS[corner] + (edge >> 2));

// Blocks of a code: { index, version, level, vertices, colours, faces, places, rims }. `places` are
// three integers a vertex: at level 0 the low point of its edge on the world's lattice, else its
// cluster. `rims` are 1 for vertices that another block could have, too.
export async function decodeMeshCode(bytes) {
  const head = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.byteLength < HEAD_BYTES || head.getUint16(0, true) !== 0x4d57 || head.getUint8(2) !== 1) {
    throw new Error("not a mesh code of version 1");
  }
  const [level, count, voxel] = [head.getUint8(3), head.getUint32(4, true), head.getFloat64(8, true)];
  const reader = new Reader(await inflated(bytes.subarray(HEAD_BYTES)));
  const blocks = reader.blocks(count);
  if (level === 0) decodeLattice(reader, blocks, voxel);
  else decodeClusters(reader, blocks, level, voxel);
  reader.end();
  return blocks.map((block) => ({ level, ...block }));
}

async function inflated(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }

  take(count) {
    if (this.at + count > this.bytes.length) throw new Error("mesh code ends too early");
    this.at += count;
    return this.bytes.subarray(this.at - count, this.at);
  }

  // A function that gives one bit after the other; `count` of them are taken.
  bits(count) {
    const taken = this.take((count + 7) >> 3);
    let next = 0;
    return () => {
      const bit = (taken[next >> 3] >> (next & 7)) & 1;
      next += 1;
      return bit;
    };
  }

  number() {
    let value = 0;
    for (let scale = 1; scale < 2 ** 35; scale *= 128) {
      const byte = this.take(1)[0];
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
    throw new Error("mesh code has a number of more than five bytes");
  }

  step() {
    const coded = this.number();
    return coded % 2 ? -(coded + 1) / 2 : coded / 2;
  }

  blocks(count) {
    const last = [0, 0, 0, 0];
    return Array.from({ length: count }, () => {
      for (let i = 0; i < 4; i += 1) last[i] += this.step();
      return { index: last.slice(0, 3), version: last[3] };
    });
  }

  colours(count) {
    const [lightness, oranges, greens] = [this.take(count), this.take(count), this.take(count)];
    const rgb = new Uint8ClampedArray(3 * count);
    let [light, orange, green] = [0, 0, 0];
    for (let i = 0; i < count; i += 1) {
      light = (light + lightness[i]) & 255;
      orange = (orange + oranges[i]) & 255;
      green = (green + greens[i]) & 255;
      const difference = 8 * ((green << 24) >> 24);
      const middle = 4 * light + 2 - (difference >> 1);
      const blue = middle - ((8 * ((orange << 24) >> 24)) >> 1);
      rgb[3 * i] = blue + 8 * ((orange << 24) >> 24);
      rgb[3 * i + 1] = difference + middle;
      rgb[3 * i + 2] = blue;
    }
    return rgb;
  }

  end() {
    if (this.at !== this.bytes.length) throw new Error("mesh code holds more than it says");
  }
}

// Numbers what blocks share on their rims alike: see sharing.py.
class Homes {
  constructor(blocks, side) {
    this.side = side;
    const ids = new Map();
    this.ofBlock = blocks.map(({ index: [x, y, z] }) =>
      Array.from({ length: 8 }, (_, c) => {
        const key = `${x + (c & 1)},${y + ((c >> 1) & 1)},${z + (c >> 2)}`;
        if (!ids.has(key)) ids.set(key, ids.size);
        return ids.get(key);
      }),
    );
  }

  key(block, x, y, z) {
    const side = this.side;
    const home = this.ofBlock[block][(x === side) + 2 * (y === side) + 4 * (z === side)];
    return home * side ** 3 + (x % side) + side * ((y % side) + side * (z % side));
  }
}

function decodeLattice(reader, blocks, voxel) {
  const isPrivate = reader.bits(blocks.length);
  const privacy = blocks.map(() => isPrivate() === 1);
  const cells = takeCells(reader, blocks.length);
  const homes = new Homes(blocks, POINTS - 1);
  const rowOfKey = new Map();
  const axes = []; // of the written vertices
  const edges = cells.map(crossedEdges);
  const rows = edges.map((own, b) => {
    const row = new Int32Array(own.length);
    for (let i = 0; i < own.length; i += 1) {
      const edge = own[i];
      const axis = edge % 3;
      if (privacy[b]) row[i] = axes.push(axis) - 1;
      else {
        const key = 3 * homes.key(b, EDGE_X[edge], EDGE_Y[edge], EDGE_Z[edge]) + axis;
        const known = rowOfKey.get(key);
        row[i] = known ?? axes.push(axis) - 1;
        if (known === undefined) rowOfKey.set(key, row[i]);
      }
    }
    return row;
  });
  const offsets = takeOffsets(reader, axes);
  const colours = reader.colours(axes.length);
  blocks.forEach((block, b) => {
    Object.assign(block, latticeMesh(block, cells[b], { edges: edges[b], rows: rows[b], offsets, colours, voxel }));
  });
}

// Low points and cases of the crossed cells of each block.
function takeCells(reader, count) {
  const crossed = reader.take(64 * count);
  const points = [];
  const corners = new Uint8Array(POINTS ** 3);
  let total = 0;
  for (let b = 0; b < count; b += 1) {
    const own = [];
    for (let i = 0; i < 512; i += 1) {
      const byte = crossed[64 * b + (i >> 3)];
      if (byte === 0) i |= 7;
      else if ((byte >> (i & 7)) & 1) own.push(pointAt(i & 7, (i >> 3) & 7, i >> 6));
    }
    markCorners(corners, own);
    for (let point = 0; point < corners.length; point += 1) total += corners[point];
    points.push(own);
  }
  const sign = reader.bits(total);
  return points.map((own) => {
    markCorners(corners, own);
    for (let point = 0; point < corners.length; point += 1) if (corners[point]) corners[point] = sign();
    return { points: own, cases: Uint8Array.from(own, (point) => caseAt(corners, point)) };
  });
}

function markCorners(corners, points) {
  corners.fill(0);
  for (const point of points) for (let c = 0; c < 8; c += 1) corners[point + CORNER_POINTS[c]] = 1;
}

function caseAt(inside, point) {
  let marching = 0;
  for (let c = 0; c < 8; c += 1) marching |= inside[point + CORNER_POINTS[c]] << c;
  if (marching === 0 || marching === 255) throw new Error("mesh code has a cell that is not crossed");
  return marching;
}

// The edges that the block's faces use, ascending.
function crossedEdges({ points, cases }) {
  const used = new Uint8Array(EDGES);
  let count = 0;
  for (let i = 0; i < points.length; i += 1) {
    for (const local of CASE_EDGES[cases[i]]) {
      const edge = 3 * points[i] + EDGE_OFFSETS[local];
      count += 1 - used[edge];
      used[edge] = 1;
    }
  }
  const edges = new Uint16Array(count);
  for (let edge = 0, at = 0; at < count; edge += 1) if (used[edge]) edges[at++] = edge;
  return edges;
}

function takeOffsets(reader, axes) {
  const steps = reader.take(axes.length);
  const last = [32, 32, 32];
  const offsets = new Uint8Array(axes.length);
  for (let i = 0; i < axes.length; i += 1) offsets[i] = last[axes[i]] = (last[axes[i]] + steps[i]) & 63;
  return offsets;
}

// Of the block at hand.
const ROW_OF_EDGE = new Int32Array(EDGES);
const NUMBER_OF_EDGE = new Int32Array(EDGES);

// Vertices are numbered in the order in which the faces use them.
function latticeMesh({ index }, { points, cases }, { edges, rows, offsets, colours, voxel }) {
  for (let i = 0; i < edges.length; i += 1) {
    ROW_OF_EDGE[edges[i]] = rows[i];
    NUMBER_OF_EDGE[edges[i]] = -1;
  }
  let corners = 0;
  for (const marching of cases) corners += CASE_EDGES[marching].length;
  const made = emptyMesh(edges.length, corners);
  let [vertex, corner] = [0, 0];
  for (let i = 0; i < points.length; i += 1) {
    for (const local of CASE_EDGES[cases[i]]) {
      const edge = 3 * points[i] + EDGE_OFFSETS[local];
      if (NUMBER_OF_EDGE[edge] < 0) {
        NUMBER_OF_EDGE[edge] = vertex;
        putVertex(made, vertex, edge, { index, row: ROW_OF_EDGE[edge], offsets, colours, voxel });
        vertex += 1;
      }
      made.faces[corner++] = NUMBER_OF_EDGE[edge];
    }
  }
  return made;
}

function emptyMesh(vertices, corners) {
  return {
    vertices: new Float32Array(3 * vertices),
    colours: new Uint8Array(3 * vertices),
    faces: new Uint32Array(corners),
    places: new Int32Array(3 * vertices),
    rims: new Uint8Array(vertices),
  };
}

function putVertex({ vertices, colours: rgb, places, rims }, vertex, edge, { index, row, offsets, colours, voxel }) {
  const axis = edge % 3;
  const share = (2 * offsets[row] + 1) / 128;
  const at = 3 * vertex;
  for (let k = 0; k < 3; k += 1) {
    const local = (k === 0 ? EDGE_X : k === 1 ? EDGE_Y : EDGE_Z)[edge];
    const place = 8 * index[k] + local;
    if (k !== axis && local % (POINTS - 1) === 0) rims[vertex] = 1;
    places[at + k] = place;
    vertices[at + k] = (k === axis ? place + share : place) * voxel;
    rgb[at + k] = colours[3 * row + k];
  }
}

function decodeClusters(reader, blocks, level, voxel) {
  const side = CLUSTERS[level];
  const size = side ** 3;
  const homes = new Homes(blocks, side - 1);
  const rowOfKey = new Map();
  const masks = reader.take(blocks.length * ((size + 7) >> 3));
  const held = blocks.map((_, b) => {
    const own = [];
    for (let k = 0; k < size; k += 1) {
      if (!((masks[b * ((size + 7) >> 3) + (k >> 3)] >> (k & 7)) & 1)) continue;
      const local = [k % side, Math.floor(k / side) % side, Math.floor(k / side ** 2)];
      const key = homes.key(b, ...local);
      if (!rowOfKey.has(key)) rowOfKey.set(key, rowOfKey.size);
      own.push({ local, row: rowOfKey.get(key) });
    }
    return own;
  });
  const steps = [0, 1, 2].map(() => reader.take(rowOfKey.size));
  const colours = reader.colours(rowOfKey.size);
  const faces = takeFaces(reader, held);
  blocks.forEach((block, b) => {
    Object.assign(block, clusterMesh(block, held[b], faces[b], { steps, colours, level, voxel }));
  });
}

function takeFaces(reader, held) {
  const counts = held.map((own) => own.map(() => reader.number()));
  const total = counts.flat().reduce((sum, count) => sum + count, 0);
  const [second, third] = [reader.take(total), reader.take(total)];
  let at = 0;
  return counts.map((own) => {
    const faces = [];
    own.forEach((count, lowest) => {
      for (let i = 0; i < count; i += 1, at += 1) faces.push(lowest, lowest + second[at], lowest + third[at]);
    });
    if (faces.some((vertex) => vertex >= own.length)) throw new Error("mesh code has a face of a vertex that is not there");
    return faces;
  });
}

function clusterMesh({ index }, held, faces, { steps, colours, level, voxel }) {
  const [vertices, rgb, places, rims] = [[], [], [], []];
  const width = CLUSTER_VOXELS[level];
  for (const { local, row } of held) {
    local.forEach((k, axis) => {
      const cluster = index[axis] * (CLUSTERS[level] - 1) + k;
      places.push(cluster);
      const inside = (steps[axis][row] + 0.5) * (width / CLUSTER_STEPS);
      vertices.push((width * cluster - (width - 1) + inside) * voxel);
    });
    rims.push(local.some((k) => k % (CLUSTERS[level] - 1) === 0) ? 1 : 0);
    rgb.push(colours[3 * row], colours[3 * row + 1], colours[3 * row + 2]);
  }
  return arrays({ vertices, rgb, faces, places, rims });
}

function arrays({ vertices, rgb, faces, places, rims }) {
  return {
    vertices: Float32Array.from(vertices),
    colours: Uint8Array.from(rgb),
    faces: Uint32Array.from(faces),
    places: Int32Array.from(places),
    rims: Uint8Array.from(rims),
  };
}
