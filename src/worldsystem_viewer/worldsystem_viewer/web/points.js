// SPDX-License-Identifier: Apache-2.0
// A sample of the newest keyframe's points.

import * as THREE from "./vendor/three.module.min.js";

export class PointsLayer {
  constructor(stage) {
    this.stage = stage;
    this.cloud = new THREE.Points(
      new THREE.BufferGeometry(),
      new THREE.PointsMaterial({ size: 3, sizeAttenuation: false, vertexColors: true }),
    );
    this.cloud.frustumCulled = false;
    this.cloud.visible = false;
    stage.world.add(this.cloud);
  }

  update({ points, colours }) {
    const geometry = new THREE.BufferGeometry();
    const linear = Float32Array.from(colours, (value) => (value / 255) ** 2.2);
    geometry.setAttribute("position", new THREE.BufferAttribute(points, 3));
    geometry.setAttribute("color", new THREE.BufferAttribute(linear, 3));
    this.cloud.geometry.dispose();
    this.cloud.geometry = geometry;
    this.stage.redraw();
  }

  clear() {
    this.update({ points: new Float32Array(0), colours: new Uint8Array(0) });
  }
}
