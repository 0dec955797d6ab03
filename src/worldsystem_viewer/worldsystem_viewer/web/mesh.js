// SPDX-License-Identifier: Apache-2.0
// The surface: blocks arrive one by one, and 4 x 4 x 4 of them are drawn as one object.

import { ClusterPlaces } from "./mesh_stitch.js";
import * as THREE from "./vendor/three.module.min.js";

const CHUNK_BLOCKS = 4;
const REBUILD_MS = 6; // per drawn frame, so that the view stays fluid while a large map comes in

export class MeshLayer {
  constructor(stage) {
    this.stage = stage;
    this.group = new THREE.Group();
    stage.world.add(this.group);
    this.material = new THREE.MeshLambertMaterial({ vertexColors: true, side: THREE.DoubleSide });
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
      this.build(key);
      if (performance.now() > until) break;
    }
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
    chunk.mesh = new THREE.Mesh(geometry, this.material);
    chunk.mesh.matrixAutoUpdate = false;
    this.group.add(chunk.mesh);
  }

  dispose(chunk) {
    if (!chunk.mesh) return;
    this.group.remove(chunk.mesh);
    chunk.mesh.geometry.dispose();
    chunk.mesh = null;
  }

  box() {
    const box = new THREE.Box3();
    for (const { mesh } of this.chunks.values()) if (mesh) box.union(mesh.geometry.boundingBox);
    return box;
  }
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
  geometry.setAttribute("color", new THREE.BufferAttribute(linear(colour), 3, true));
  geometry.setIndex(new THREE.BufferAttribute(index, 1));
  geometry.computeVertexNormals();
  geometry.computeBoundingBox();
  geometry.computeBoundingSphere();
  return geometry;
}

// Colours come as sRGB; lighting is computed on linear values.
const LINEAR = Uint16Array.from({ length: 256 }, (_, value) => {
  const c = value / 255;
  return Math.round(65535 * (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
});

function linear(colour) {
  const out = new Uint16Array(colour.length);
  for (let i = 0; i < colour.length; i += 1) out[i] = LINEAR[colour[i]];
  return out;
}
