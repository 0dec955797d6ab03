// SPDX-License-Identifier: Apache-2.0
// Blocks of different levels without cracks between them: the two rules of docs/mesh_code.md.

const BIAS = 65536; // clusters reach from -65536 to 65535 along an axis
const SPAN = 2 * BIAS;

// Where the vertices of coarse blocks lie, by level and cluster.
export class ClusterPlaces {
  constructor() {
    this.levels = [null, new Map(), new Map()];
  }

  add(block) {
    this.each(block, (held, i) => held.push({ block, i }));
  }

  remove(block) {
    this.each(block, (held) => {
      held.splice(held.findIndex((entry) => entry.block === block), 1);
    });
  }

  clear() {
    for (const places of this.levels) places?.clear();
  }

  // The block's vertices, those on its rims where the coarsest block there has them.
  vertices(block) {
    if (!block.places || this.levels.every((places) => !places?.size)) return block.vertices;
    const moved = block.vertices.slice();
    for (let i = 0; i < block.rims.length; i += 1) {
      const place = this.place(block, i);
      if (place) moved.set(place, 3 * i);
    }
    return moved;
  }

  place(block, i) {
    const cluster = Array.from(block.places.subarray(3 * i, 3 * i + 3));
    const at = [null, null, null];
    for (let level = block.level; level <= 2; level += 1) {
      if (level > block.level) cluster.forEach((k, axis) => { cluster[axis] = (k + 1) >> 1; });
      if (level > 0) at[level] = this.levels[level].get(key(cluster));
    }
    const held = (block.rims[i] ? at[2] ?? at[1] : null) ?? at[block.level];
    if (!held?.length) return null;
    const newest = held.reduce((best, entry) => (entry.block.version > best.block.version ? entry : best));
    return newest.block.vertices.subarray(3 * newest.i, 3 * newest.i + 3);
  }

  each(block, visit) {
    if (!block?.level) return;
    const places = this.levels[block.level];
    for (let i = 0; i < block.places.length / 3; i += 1) {
      const name = key(block.places.subarray(3 * i, 3 * i + 3));
      const held = places.get(name) ?? [];
      visit(held, i);
      if (held.length) places.set(name, held);
      else places.delete(name);
    }
  }
}

function key([x, y, z]) {
  return ((x + BIAS) * SPAN + y + BIAS) * SPAN + z + BIAS;
}
