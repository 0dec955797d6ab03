// SPDX-License-Identifier: Apache-2.0
// The camera's path as a line that grows.

import * as THREE from "./vendor/three.module.min.js";

export class TrajectoryLayer {
  constructor(stage) {
    this.stage = stage;
    this.capacity = 0;
    this.length = 0;
    this.line = new THREE.Line(
      new THREE.BufferGeometry(),
      new THREE.LineBasicMaterial({ color: 0xff7a1a, depthTest: true }),
    );
    this.line.frustumCulled = false;
    stage.world.add(this.line);
    this.reserve(1024);
  }

  clear() {
    this.setLength(0);
  }

  update({ start, positions }) {
    const length = start + positions.length / 3;
    if (length > this.capacity) this.reserve(2 ** Math.ceil(Math.log2(length)));
    const attribute = this.line.geometry.attributes.position;
    attribute.array.set(positions, 3 * start);
    this.dirtyFrom = Math.min(this.dirtyFrom, start); // several updates may come between two frames
    attribute.clearUpdateRanges();
    attribute.addUpdateRange(3 * this.dirtyFrom, 3 * (length - this.dirtyFrom));
    attribute.needsUpdate = true;
    this.setLength(length);
  }

  setLength(length) {
    this.length = length;
    this.line.geometry.setDrawRange(0, length);
    this.stage.redraw();
  }

  reserve(capacity) {
    const array = new Float32Array(3 * capacity);
    const before = this.line.geometry.attributes.position;
    if (before) array.set(before.array);
    this.line.geometry.dispose();
    this.line.geometry = new THREE.BufferGeometry();
    this.dirtyFrom = 0;
    const attribute = new THREE.BufferAttribute(array, 3);
    attribute.onUpload(() => { this.dirtyFrom = Infinity; });
    this.line.geometry.setAttribute("position", attribute);
    this.capacity = capacity;
  }

  box() {
    const array = this.line.geometry.attributes.position.array.subarray(0, 3 * this.length);
    return new THREE.Box3().setFromArray(array);
  }
}
