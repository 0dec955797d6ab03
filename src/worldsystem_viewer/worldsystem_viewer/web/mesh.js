// SPDX-License-Identifier: Apache-2.0
// The surface: blocks arrive one by one, and 4 x 4 x 4 of them are drawn as one object.

import { ClusterPlaces } from "./mesh_stitch.js";
import * as THREE from "./vendor/three.module.min.js";

const CHUNK_BLOCKS = 4;
const REBUILD_MS = 6; // per drawn frame, so that the view stays fluid while a large map comes in
const MOST_DRAWN = 6_000_000; // triangles; of a larger surface the nearest are drawn

export class MeshLayer {
  constructor(stage) {
    this.stage = stage;
    this.group = new THREE.Group();
    stage.world.add(this.group);
    this.material = new THREE.MeshLambertMaterial({ vertexColors: true, side: THREE.DoubleSide });
    this.drawn = 0;
    this.beyond = false; // whether some chunks are not drawn because they are far
    this.buildMs = [];
    this.chunks = new Map();
    this.dirty = new Set();
    this.places = new ClusterPlaces();
    this.worker = null; // decodes; made when the first coded message comes
    this.epoch = 0;
    this.triangles = this.vertices = this.coarse = 0;
    stage.beforeDraw.push(() => this.rebuild());
  }

  clear() {
    for (const chunk of this.chunks.values()) this.dispose(chunk);
    this.chunks.clear();
    this.dirty.clear();
    this.places.clear();
    this.epoch += 1;
    this.triangles = this.vertices = this.coarse = 0;
    this.stage.redraw();
  }

  // Blocks one behind the other, as they are drawn.
  update({ index, vertex_count, face_count, vertices, colours, faces, removed }) {
    const blocks = [];
    let v = 0;
    let f = 0;
    for (let at = 0; at < vertex_count.length; at += 1) {
      const [nv, nf] = [3 * vertex_count[at], 3 * face_count[at]];
      // slice, not subarray: a view would keep the whole message in memory
      blocks.push({
        index: Array.from(index.subarray(3 * at, 3 * at + 3)),
        level: 0,
        vertices: vertices.slice(v, v + nv),
        colours: colours.slice(v, v + nv),
        faces: faces.slice(f, f + nf),
      });
      v += nv;
      f += nf;
    }
    // behind coded messages that are still being decoded
    if (this.worker) this.worker.postMessage({ epoch: this.epoch, blocks, removed });
    else this.take({ blocks, removed });
  }

  // Blocks in the block code.
  decode({ code, removed }) {
    if (!this.worker) {
      this.worker = new Worker(new URL("./mesh_worker.js", import.meta.url), { type: "module" });
      this.worker.onmessage = ({ data }) => {
        if (data.error) console.error(`a mesh message was not understood: ${data.error}`);
        if (data.epoch === this.epoch) this.take(data);
      };
    }
    this.worker.postMessage({ epoch: this.epoch, code: code.slice(), removed: removed.slice() });
  }

  take({ blocks, removed }) {
    for (let at = 0; at < removed.length; at += 3) this.put(removed.subarray(at, at + 3), null);
    for (const block of blocks) this.put(block.index, block);
    this.stage.redraw();
  }

  put(index, block) {
    const chunkKey = chunkOf(index);
    let chunk = this.chunks.get(chunkKey);
    if (!chunk) {
      if (!block) return;
      chunk = { blocks: new Map(), mesh: null };
      this.chunks.set(chunkKey, chunk);
    }
    const key = index.join();
    const before = chunk.blocks.get(key);
    this.count(before, -1);
    this.count(block, 1);
    this.places.remove(before);
    this.places.add(block);
    if (block) chunk.blocks.set(key, block);
    else chunk.blocks.delete(key);
    this.dirty.add(chunkKey);
    if (before?.level || block?.level) this.touchNeighbours(index);
  }

  // Rims of finer blocks go where a coarse block has its vertices.
  touchNeighbours(index) {
    for (let c = 0; c < 27; c += 1) {
      const key = chunkOf([index[0] + (c % 3) - 1, index[1] + (Math.floor(c / 3) % 3) - 1, index[2] + Math.floor(c / 9) - 1]);
      if (this.chunks.has(key)) this.dirty.add(key);
    }
  }

  count(block, sign) {
    this.triangles += sign * (block ? block.faces.length / 3 : 0);
    this.vertices += sign * (block ? block.vertices.length / 3 : 0);
    this.coarse += sign * (block?.level ? 1 : 0);
  }

  // Returns whether there is more to do.
  rebuild() {
    const until = performance.now() + REBUILD_MS;
    for (const key of this.dirty) {
      this.dirty.delete(key);
      const begun = performance.now();
      this.build(key);
      const ended = performance.now();
      this.buildMs.push(ended - begun);
      if (ended > until) break;
    }
    if (this.buildMs.length > 2000) this.buildMs.splice(0, 1000);
    return this.dirty.size > 0;
  }

  build(key) {
    const chunk = this.chunks.get(key);
    this.dispose(chunk);
    if (chunk.blocks.size === 0) {
      this.chunks.delete(key);
      return;
    }
    const geometry = joined([...chunk.blocks.values()], this.places);
    if (geometry === null) return;
    chunk.box = geometry.boundingBox;
    const triangles = geometry.index.count / 3;
    if (this.drawn + triangles > MOST_DRAWN) {
      this.beyond = true;
      geometry.dispose();
      return;
    }
    chunk.mesh = new THREE.Mesh(geometry, this.material);
    chunk.mesh.matrixAutoUpdate = false;
    this.drawn += triangles;
    this.group.add(chunk.mesh);
  }

  // Of a surface that is too large, what is near the view; call it now and then.
  keepNearest() {
    if (!this.beyond) return;
    this.beyond = false;
    const eye = this.stage.world.worldToLocal(this.stage.camera.position.clone());
    const far = [...this.chunks].filter(([, chunk]) => chunk.box);
    far.sort(([, a], [, b]) => a.box.distanceToPoint(eye) - b.box.distanceToPoint(eye));
    let count = 0;
    for (const [key, chunk] of far) {
      let triangles = 0;
      for (const block of chunk.blocks.values()) triangles += block.faces.length / 3;
      count += triangles;
      if (count > MOST_DRAWN) {
        this.dispose(chunk);
        this.beyond = true;
      } else if (!chunk.mesh) this.dirty.add(key);
    }
    this.stage.redraw();
  }

  // The graphics were lost and are back: build everything again.
  rebuildAll() {
    for (const key of this.chunks.keys()) this.dirty.add(key);
    this.stage.redraw();
  }

  // Where the ray (THREE.Raycaster) meets the surface first, in the stage's frame, or null.
  pick(caster) {
    if (!this.group.visible) return null;
    return caster.intersectObjects(this.group.children, false)[0]?.point ?? null;
  }

  // How far from `origin` along `direction` (in the stage's frame) the surface is.
  distance(origin, direction) {
    const caster = new THREE.Raycaster(origin, direction);
    return caster.intersectObjects(this.group.children, false)[0]?.distance ?? Infinity;
  }

  // The box around nearly all of the surface: stray pieces far away must not make it small.
  core() {
    const boxes = [...this.chunks.values()].filter(({ mesh }) => mesh);
    const core = new THREE.Box3();
    if (boxes.length === 0) return core;
    for (const side of ["x", "y", "z"]) {
      const weighed = boxes.map(({ box, mesh }) => [box, mesh.geometry.index.count]);
      const total = weighed.reduce((sum, [, count]) => sum + count, 0);
      core.min[side] = quantile(weighed.map(([box, count]) => [box.min[side], count]), 0.01 * total);
      core.max[side] = -quantile(weighed.map(([box, count]) => [-box.max[side], count]), 0.01 * total);
    }
    return core;
  }

  dispose(chunk) {
    if (!chunk.mesh) return;
    this.group.remove(chunk.mesh);
    this.drawn -= chunk.mesh.geometry.index.count / 3;
    chunk.mesh.geometry.dispose();
    chunk.mesh = null;
  }

  box() {
    const box = new THREE.Box3();
    for (const { mesh } of this.chunks.values()) if (mesh) box.union(mesh.geometry.boundingBox);
    return box;
  }
}

// The value below which `weight` of the weighed values lie.
function quantile(weighed, weight) {
  weighed.sort(([a], [b]) => a - b);
  let sum = 0;
  for (const [value, count] of weighed) {
    sum += count;
    if (sum > weight) return value;
  }
  return weighed.at(-1)[0];
}

function chunkOf(index) {
  return Array.from(index, (i) => Math.floor(i / CHUNK_BLOCKS)).join();
}

function joined(blocks, places) {
  const total = { v: 0, f: 0 };
  for (const block of blocks) {
    total.v += block.vertices.length;
    total.f += block.faces.length;
  }
  if (total.f === 0) return null;
  const position = new Float32Array(total.v);
  const colour = new Uint8Array(total.v);
  const index = new Uint32Array(total.f);
  let v = 0;
  let f = 0;
  for (const block of blocks) {
    position.set(places.vertices(block), v);
    colour.set(block.colours, v);
    for (let i = 0; i < block.faces.length; i += 1) index[f + i] = block.faces[i] + v / 3;
    v += block.vertices.length;
    f += block.faces.length;
  }
  const geometry = new THREE.BufferGeometry();
  geometry.setAttribute("position", new THREE.BufferAttribute(position, 3));
  geometry.setAttribute("color", uploaded(new THREE.BufferAttribute(linear(colour), 3, true)));
  geometry.setAttribute("normal", uploaded(new THREE.BufferAttribute(normals(position, index), 3, true)));
  geometry.setIndex(new THREE.BufferAttribute(index, 1));
  geometry.computeBoundingBox();
  geometry.computeBoundingSphere();
  return geometry;
}

// Once the graphics have it, the page need not: places and faces stay, for picking.
function uploaded(attribute) {
  attribute.onUpload(() => { attribute.array = new attribute.array.constructor(0); });
  return attribute;
}

// Normals as bytes; vertices at one place, on the rims of two blocks, have one normal.
function normals(position, index) {
  const count = position.length / 3;
  const first = sharedPlaces(position, count);
  const sum = new Float32Array(3 * count);
  for (let f = 0; f < index.length; f += 3) {
    const a = 3 * index[f];
    const b = 3 * index[f + 1];
    const c = 3 * index[f + 2];
    const ux = position[b] - position[a];
    const uy = position[b + 1] - position[a + 1];
    const uz = position[b + 2] - position[a + 2];
    const vx = position[c] - position[a];
    const vy = position[c + 1] - position[a + 1];
    const vz = position[c + 2] - position[a + 2];
    const nx = uy * vz - uz * vy;
    const ny = uz * vx - ux * vz;
    const nz = ux * vy - uy * vx;
    for (let k = 0; k < 3; k += 1) {
      const at = 3 * first[index[f + k]];
      sum[at] += nx;
      sum[at + 1] += ny;
      sum[at + 2] += nz;
    }
  }
  const out = new Int8Array(3 * count);
  for (let i = 0; i < count; i += 1) {
    const at = 3 * first[i];
    const scale = 127 / (Math.sqrt(sum[at] ** 2 + sum[at + 1] ** 2 + sum[at + 2] ** 2) || 1);
    out[3 * i] = Math.round(sum[at] * scale);
    out[3 * i + 1] = Math.round(sum[at + 1] * scale);
    out[3 * i + 2] = Math.round(sum[at + 2] * scale);
  }
  return out;
}

// For each vertex the first one that lies at the very same place.
function sharedPlaces(position, count) {
  const bits = new Uint32Array(position.buffer, position.byteOffset, position.length);
  const size = 2 ** Math.ceil(Math.log2(2 * count + 1));
  const table = new Int32Array(size).fill(-1);
  const first = new Uint32Array(count);
  for (let i = 0; i < count; i += 1) {
    const x = bits[3 * i];
    const y = bits[3 * i + 1];
    const z = bits[3 * i + 2];
    let slot = (Math.imul(x, 0x9e3779b1) ^ Math.imul(y, 0x85ebca6b) ^ Math.imul(z, 0xc2b2ae35)) >>> 0;
    slot = (slot ^ (slot >>> 15)) & (size - 1);
    for (;;) {
      const held = table[slot];
      if (held < 0) {
        table[slot] = first[i] = i;
        break;
      }
      if (bits[3 * held] === x && bits[3 * held + 1] === y && bits[3 * held + 2] === z) {
        first[i] = held;
        break;
      }
      slot = (slot + 1) & (size - 1);
    }
  }
  return first;
}

// Colours come as sRGB; lighting is computed on linear values.
const LINEAR = Uint16Array.from({ length: 256 }, (_, value) => {
  const c = value / 255;
  return Math.round(65535 * (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
});

export function linear(colour) {
  const out = new Uint16Array(colour.length);
  for (let i = 0; i < colour.length; i += 1) out[i] = LINEAR[colour[i]];
  return out;
}
