// SPDX-License-Identifier: Apache-2.0
// The surface: blocks arrive one by one, and 4 x 4 x 4 of them are drawn as one object.

import { joined } from "./mesh_geometry.js";
import { ClusterPlaces } from "./mesh_stitch.js";
import * as THREE from "./vendor/three.module.min.js";

const CHUNK_BLOCKS = 4;
const REBUILD_MS = 6; // per drawn frame, so that the view stays fluid while a large map comes in
const WARM_RUNS = 12;
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
    this.worker = this.decoder();
    this.coded = false; // whether a coded message came
    this.warm = false; // whether what messages run through has run before
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
    if (this.coded) this.worker.postMessage({ epoch: this.epoch, blocks, removed });
    else this.take({ blocks, removed });
  }

  // Blocks in the block code.
  decode({ code, removed }) {
    this.coded = true;
    this.worker.postMessage({ epoch: this.epoch, code: code.slice(), removed: removed.slice() });
  }

  decoder() {
    const worker = new Worker(new URL("./mesh_worker.js", import.meta.url), { type: "module" });
    worker.onmessage = ({ data }) => {
      if (data.error) console.error(`a mesh message was not understood: ${data.error}`);
      if (data.made) this.warmUp(data.made, WARM_RUNS);
      else if (data.epoch === this.epoch) this.take(data);
    };
    return worker;
  }

  // Runs what the first message will run through, while there is nothing else to do.
  warmUp(blocks, runs) {
    this.warm = runs === 0 || blocks.length === 0;
    if (this.warm) return;
    idle(() => {
      const geometry = joined(blocks, new ClusterPlaces());
      if (runs === 1) this.drawOnePixel(geometry);
      geometry.dispose();
      this.warmUp(blocks, runs - 1);
    });
  }

  // Graphics finish their programs when they first draw with them.
  drawOnePixel(geometry) {
    const mesh = new THREE.Mesh(geometry, this.material);
    mesh.frustumCulled = false;
    const { renderer, scene, camera } = this.stage;
    this.group.add(mesh);
    renderer.setScissor(0, 0, 1, 1);
    renderer.setScissorTest(true);
    renderer.render(scene, camera);
    renderer.setScissorTest(false);
    this.group.remove(mesh);
    this.stage.redraw();
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

  // Where the ray (THREE.Raycaster) meets the surface first, in the stage's frame, or null; also
  // while points or splats stand for it.
  pick(caster) {
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

function idle(work) {
  if (window.requestIdleCallback) requestIdleCallback(work, { timeout: 500 });
  else setTimeout(work, 20);
}

function chunkOf([x, y, z]) {
  return `${Math.floor(x / CHUNK_BLOCKS)},${Math.floor(y / CHUNK_BLOCKS)},${Math.floor(z / CHUNK_BLOCKS)}`;
}
