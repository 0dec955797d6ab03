// SPDX-License-Identifier: Apache-2.0
// All splats in one texture and one draw call, back to front: pages of 256 splats, of one chunk each.
//
// The graphics card reads the 16-byte words as they came; nothing is decoded here. A worker sorts.

import { FRAGMENT, VERTEX } from "./splat_shader.js";
import * as THREE from "./vendor/three.module.min.js";

const PAGE = 256;
const ROW = 1024; // texels in a row of the words' texture: four pages
const PLACED = 64; // pages whose places are one row of the places' texture, three texels each
const FIRST_PAGES = 256;
const CALM = 0.9998; // cosine: a view that turned by less keeps its order

export class SplatPool {
  constructor(stage) {
    this.stage = stage;
    this.chunks = new Map();
    this.free = [];
    this.count = 0;
    this.pages = 0;
    this.geometry = quad();
    this.material = new THREE.ShaderMaterial({
      vertexShader: VERTEX,
      fragmentShader: FRAGMENT,
      glslVersion: THREE.GLSL3,
      uniforms: {
        words: { value: null },
        places: { value: null },
        viewport: { value: new THREE.Vector2() },
        focal: { value: new THREE.Vector2() },
      },
      transparent: true,
      depthWrite: false,
      blending: THREE.CustomBlending,
      blendSrc: THREE.OneFactor,
      blendDst: THREE.OneMinusSrcAlphaFactor,
      premultipliedAlpha: true,
    });
    this.group = new THREE.Group();
    this.mesh = new THREE.Mesh(this.geometry, this.material);
    this.mesh.frustumCulled = false;
    this.mesh.renderOrder = 10;
    this.mesh.onBeforeRender = () => this.aim();
    this.group.add(this.mesh);
    stage.world.add(this.group);
    this.sorter = new Worker(new URL("./splat_sorter.js", import.meta.url), { type: "module" });
    this.sorter.onmessage = ({ data }) => this.takeOrder(data);
    this.sorting = false;
    this.stale = true;
    this.sorts = 0;
    this.seenAlong = new THREE.Vector3();
    this.grow(FIRST_PAGES);
    stage.beforeDraw.push(() => {
      this.sortIfNeeded();
      return false;
    });
  }

  // Twice as large textures, with what was there.
  grow(pages) {
    const rows = (pages * PAGE) / ROW;
    const words = new Uint32Array(pages * PAGE * 4);
    const places = new Float32Array(pages * 12);
    if (this.words) {
      words.set(this.words.image.data);
      places.set(this.places.image.data);
      this.words.dispose();
      this.places.dispose();
    }
    this.words = new THREE.DataTexture(words, ROW, rows, THREE.RGBAIntegerFormat, THREE.UnsignedIntType);
    this.words.internalFormat = "RGBA32UI";
    this.places = new THREE.DataTexture(places, 3 * PLACED, pages / PLACED, THREE.RGBAFormat, THREE.FloatType);
    for (const texture of [this.words, this.places]) {
      texture.unpackAlignment = 4;
      texture.onUpdate = () => { texture.userData.uploaded = true; };
      texture.needsUpdate = true;
    }
    this.material.uniforms.words.value = this.words;
    this.material.uniforms.places.value = this.places;
    for (let page = pages - 1; page >= this.pages; page -= 1) this.free.push(page);
    this.pages = pages;
    const order = new THREE.InstancedBufferAttribute(new Uint32Array(pages * PAGE), 1);
    order.setUsage(THREE.DynamicDrawUsage);
    if (this.order) order.array.set(this.order.array);
    this.order = order;
    this.geometry.dispose(); // the buffer of another size is made anew
    this.geometry.setAttribute("number", order);
  }

  put(id, words, matrix) {
    const wanted = Math.ceil(words.length / 4 / PAGE);
    const before = this.chunks.get(id);
    const pages = before ? before.pages : [];
    if (before) this.count -= before.count;
    while (pages.length > wanted) this.erase(pages.pop());
    while (this.free.length < wanted - pages.length) this.grow(2 * this.pages);
    while (pages.length < wanted) pages.push(this.free.pop());
    const data = this.words.image.data;
    for (let k = 0; k < pages.length; k += 1) {
      const at = pages[k] * PAGE * 4;
      const part = words.subarray(k * PAGE * 4, (k + 1) * PAGE * 4);
      data.set(part, at);
      if (part.length < PAGE * 4) data.fill(0, at + part.length, at + PAGE * 4);
      touch(this.words, at, PAGE * 4);
    }
    this.words.needsUpdate = true;
    const count = words.length / 4;
    this.chunks.set(id, { pages, count });
    this.count += count;
    this.place(pages, matrix);
    this.sorter.postMessage({ put: id, pages, words, matrix: matrix.slice() }, [words.buffer]);
    this.stale = true;
  }

  move(id, matrix) {
    const chunk = this.chunks.get(id);
    if (!chunk) return;
    this.place(chunk.pages, matrix);
    this.sorter.postMessage({ move: id, matrix: matrix.slice() });
    this.stale = true;
  }

  remove(id) {
    const chunk = this.chunks.get(id);
    if (!chunk) return;
    for (const page of chunk.pages) this.erase(page);
    this.words.needsUpdate = true;
    this.count -= chunk.count;
    this.chunks.delete(id);
    this.sorter.postMessage({ remove: id });
    this.stale = true;
  }

  clear() {
    for (const id of [...this.chunks.keys()]) this.remove(id);
  }

  // Invisible at once, although the order still names them until it is made anew.
  erase(page) {
    this.words.image.data.fill(0, page * PAGE * 4, (page + 1) * PAGE * 4);
    touch(this.words, page * PAGE * 4, PAGE * 4);
    this.free.push(page);
  }

  // Three rows of world_from_chunk for each page.
  place(pages, matrix) {
    for (const page of pages) {
      this.places.image.data.set(matrix.subarray(0, 12), page * 12);
      touch(this.places, page * 12, 12);
    }
    this.places.needsUpdate = true;
  }

  // The graphics card has lost all textures: they go up whole again.
  restore() {
    for (const texture of [this.words, this.places]) {
      texture.clearUpdateRanges();
      texture.userData.uploaded = false;
      texture.needsUpdate = true;
    }
    this.stage.redraw();
  }

  sortIfNeeded() {
    if (!this.group.visible || this.sorting) return;
    const { camera, world } = this.stage;
    camera.updateMatrixWorld();
    const view = camera.matrixWorldInverse.copy(camera.matrixWorld).invert().clone().multiply(world.matrixWorld);
    const e = view.elements;
    const along = new THREE.Vector3(e[2], e[6], e[10]); // towards the viewer, in the world frame
    if (!this.stale && along.dot(this.seenAlong) > CALM) return;
    this.seenAlong.copy(along);
    this.stale = false;
    this.sorting = true;
    this.sorter.postMessage({ along: along.toArray() });
  }

  takeOrder({ order }) {
    this.sorting = false;
    this.sorts += 1;
    this.order.array.set(order);
    this.order.clearUpdateRanges();
    this.order.addUpdateRange(0, order.length);
    this.order.needsUpdate = true;
    this.geometry.instanceCount = order.length;
    this.stage.redraw();
  }

  aim() {
    const { camera, renderer } = this.stage;
    const { viewport, focal } = this.material.uniforms;
    renderer.getDrawingBufferSize(viewport.value);
    const e = camera.projectionMatrix.elements;
    focal.value.set(0.5 * e[0] * viewport.value.x, 0.5 * e[5] * viewport.value.y);
  }
}

// A part has changed. Before its first upload a texture must have no ranges: only they would go up.
function touch(texture, start, count) {
  if (texture.userData.uploaded) texture.addUpdateRange(start, count);
}

function quad() {
  const geometry = new THREE.InstancedBufferGeometry();
  const corners = new Float32Array([-1, -1, 0, 1, -1, 0, -1, 1, 0, 1, 1, 0]);
  geometry.setAttribute("position", new THREE.BufferAttribute(corners, 3));
  geometry.setIndex([0, 1, 2, 2, 1, 3]);
  geometry.instanceCount = 0;
  return geometry;
}
