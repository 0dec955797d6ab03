// SPDX-License-Identifier: Apache-2.0
// The camera's path as a wide line that grows; only the pieces that changed are built again.

import * as THREE from "./vendor/three.module.min.js";
import { Line2, LineGeometry, LineMaterial } from "./vendor/three.module.min.js";

const PIECE = 512; // points

export class TrajectoryLayer {
  constructor(stage) {
    this.stage = stage;
    this.group = new THREE.Group();
    this.material = new LineMaterial({ color: 0xff7a1a, linewidth: 3 });
    this.pieces = [];
    this.positions = new Float32Array(3 * PIECE);
    this.length = 0;
    this.dirtyFrom = Infinity;
    stage.world.add(this.group);
    stage.beforeDraw.push(() => this.rebuild());
  }

  clear() {
    this.update({ start: 0, positions: new Float32Array(0) });
  }

  update({ start, positions }) {
    const length = start + positions.length / 3;
    if (3 * length > this.positions.length) this.reserve(2 ** Math.ceil(Math.log2(length)));
    this.positions.set(positions, 3 * start);
    this.length = length;
    this.dirtyFrom = Math.min(this.dirtyFrom, start);
    this.stage.redraw();
  }

  reserve(capacity) {
    const before = this.positions;
    this.positions = new Float32Array(3 * capacity);
    this.positions.set(before);
  }

  // A piece begins at the last point of the one before it, so that no gap is seen.
  rebuild() {
    if (this.dirtyFrom === Infinity) return false;
    const first = Math.floor(Math.max(0, this.dirtyFrom - 1) / PIECE);
    for (const piece of this.pieces.splice(first)) {
      this.group.remove(piece);
      piece.geometry.dispose();
    }
    for (let from = first * PIECE; from < this.length - 1; from += PIECE) {
      const geometry = new LineGeometry();
      const to = Math.min(from + PIECE + 1, this.length);
      geometry.setPositions(this.positions.slice(3 * from, 3 * to));
      const piece = new Line2(geometry, this.material);
      this.pieces.push(piece);
      this.group.add(piece);
    }
    this.dirtyFrom = Infinity;
    return false;
  }

  box() {
    return new THREE.Box3().setFromArray(this.positions.subarray(0, 3 * this.length));
  }
}
