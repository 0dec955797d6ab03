// SPDX-License-Identifier: Apache-2.0
// Decoder of the block code; docs/mesh_code.md is its specification, worldsystem_core/mesh_code its twin.

import { CASE_EDGES, EDGE_LOW_CORNER } from "./marching_cubes.js";

const HEAD_BYTES = 16;
const POINTS = 9;
const CLUSTERS = [0, 5, 3]; // along a block's edge, at levels 1 and 2
const CLUSTER_VOXELS = [0, 2, 4];
const CLUSTER_STEPS = 16;

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
    const channels = [0, 1, 2].map(() => this.take(count));
    const rgb = new Uint8ClampedArray(3 * count);
    const sum = [0, 0, 0];
    for (let i = 0; i < count; i += 1) {
      for (let c = 0; c < 3; c += 1) sum[c] = (sum[c] + channels[c][i]) & 255;
      const orange = 8 * ((sum[1] << 24) >> 24);
      const difference = 8 * ((sum[2] << 24) >> 24);
      const middle = 4 * sum[0] + 2 - (difference >> 1);
      const blue = middle - (orange >> 1);
      rgb.set([blue + orange, difference + middle, blue], 3 * i);
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
  const writtenAxes = [];
  const rows = cells.map((own, b) => {
    const edges = crossedEdges(own);
    const row = new Int32Array(3 * POINTS ** 3).fill(-1);
    for (const edge of edges) row[edge] = rowOf(edge, b, privacy[b]);
    return row;
  });

  function rowOf(edge, block, alone) {
    const [x, y, z] = edgePoint(edge);
    const key = 3 * homes.key(block, x, y, z) + (edge % 3);
    const known = alone ? undefined : rowOfKey.get(key);
    if (known !== undefined) return known;
    if (!alone) rowOfKey.set(key, writtenAxes.length);
    writtenAxes.push(edge % 3);
    return writtenAxes.length - 1;
  }

  const offsets = takeOffsets(reader, writtenAxes);
  const colours = reader.colours(writtenAxes.length);
  blocks.forEach((block, b) => Object.assign(block, latticeMesh(block, cells[b], rows[b], { offsets, colours, voxel })));
}

// Low point and case of the crossed cells of each block.
function takeCells(reader, count) {
  const bit = reader.bits(512 * count);
  const corner = [];
  let corners = 0;
  const cells = Array.from({ length: count }, () => {
    const own = [];
    const isCorner = new Uint8Array(POINTS ** 3);
    for (let i = 0; i < 512; i += 1) {
      if (!bit()) continue;
      const point = pointAt(i & 7, (i >> 3) & 7, i >> 6);
      own.push({ point, marching: 0 });
      for (const offset of CORNER_POINTS) isCorner[point + offset] = 1;
    }
    corner.push(isCorner);
    corners += isCorner.reduce((sum, one) => sum + one, 0);
    return own;
  });
  const sign = reader.bits(corners);
  cells.forEach((own, b) => {
    const inside = corner[b].map((one) => (one ? sign() : 0));
    for (const cell of own) {
      CORNER_POINTS.forEach((offset, c) => { cell.marching |= inside[cell.point + offset] << c; });
      if (cell.marching === 0 || cell.marching === 255) throw new Error("mesh code has a cell that is not crossed");
    }
  });
  return cells;
}

function crossedEdges(cells) {
  const used = new Uint8Array(3 * POINTS ** 3);
  for (const { point, marching } of cells) for (const edge of CASE_EDGES[marching]) used[3 * point + EDGE_OFFSETS[edge]] = 1;
  const edges = [];
  used.forEach((one, edge) => { if (one) edges.push(edge); });
  return edges;
}

function edgePoint(edge) {
  const point = Math.floor(edge / 3);
  return [point % POINTS, Math.floor(point / POINTS) % POINTS, Math.floor(point / POINTS ** 2)];
}

function takeOffsets(reader, axes) {
  const steps = reader.take(axes.length);
  const last = [32, 32, 32];
  return axes.map((axis, i) => (last[axis] = (last[axis] + steps[i]) & 63));
}

// Vertices are numbered in the order in which the faces use them.
function latticeMesh({ index }, cells, rowOfEdge, { offsets, colours, voxel }) {
  const number = new Int16Array(3 * POINTS ** 3).fill(-1);
  const [vertices, rgb, faces, places, rims] = [[], [], [], [], []];
  const add = (edge) => {
    number[edge] = vertices.length / 3;
    const local = edgePoint(edge);
    rims.push(local.some((p, axis) => axis !== edge % 3 && p % (POINTS - 1) === 0) ? 1 : 0);
    const point = local.map((p, axis) => 8 * index[axis] + p);
    places.push(...point);
    const row = rowOfEdge[edge];
    point[edge % 3] += (2 * offsets[row] + 1) / 128;
    vertices.push(...point.map((place) => place * voxel));
    rgb.push(colours[3 * row], colours[3 * row + 1], colours[3 * row + 2]);
  };
  for (const { point, marching } of cells) {
    for (const local of CASE_EDGES[marching]) {
      const edge = 3 * point + EDGE_OFFSETS[local];
      if (number[edge] < 0) add(edge);
      faces.push(number[edge]);
    }
  }
  return arrays({ vertices, rgb, faces, places, rims });
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
