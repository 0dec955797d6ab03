// SPDX-License-Identifier: Apache-2.0
// Levels 1 and 2 of the block code: see docs/mesh_code.md.

import { Homes } from "./mesh_homes.js";

const CLUSTERS = [0, 5, 3]; // along a block's edge, at levels 1 and 2
const CLUSTER_VOXELS = [0, 2, 4];
const CLUSTER_STEPS = 16;

export function decodeClusters(reader, blocks, level, voxel) {
  const side = CLUSTERS[level];
  const size = side ** 3;
  const homes = new Homes(blocks);
  const rowOfKey = new Map();
  const masks = reader.take(blocks.length * ((size + 7) >> 3));
  const held = blocks.map((_, b) => {
    const own = [];
    for (let k = 0; k < size; k += 1) {
      if (!((masks[b * ((size + 7) >> 3) + (k >> 3)] >> (k & 7)) & 1)) continue;
      const local = [k % side, Math.floor(k / side) % side, Math.floor(k / side ** 2)];
      const key = clusterKey(homes, b, local, side - 1);
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

function clusterKey(homes, block, [x, y, z], side) {
  const home = homes.of(block, (x === side) + 2 * (y === side) + 4 * (z === side));
  return home * side ** 3 + (x % side) + side * ((y % side) + side * (z % side));
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
