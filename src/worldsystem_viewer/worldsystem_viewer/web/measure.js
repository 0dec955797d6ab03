// SPDX-License-Identifier: Apache-2.0
// Distances between points that are picked on the surface.

import * as THREE from "./vendor/three.module.min.js";
import { LineMaterial, LineSegments2, LineSegmentsGeometry } from "./vendor/three.module.min.js";

const MOST_LINES = 20;
const DOT_PX = 9;
const OVER_SPLATS = 20; // which are drawn at 10, over what was drawn without depth before

export class Measure {
  // `length(value)` tells a length in words.
  constructor(stage, labels, length) {
    Object.assign(this, { stage, labels, length });
    this.on = false;
    this.points = [];
    this.lines = new LineSegments2(new LineSegmentsGeometry(), new LineMaterial({ color: 0xff3d8b, linewidth: 3, depthTest: false, transparent: true }));
    this.dots = new THREE.Points(new THREE.BufferGeometry(), new THREE.PointsMaterial({ color: 0xff3d8b, sizeAttenuation: false, depthTest: false, transparent: true }));
    for (const object of [this.lines, this.dots]) {
      object.frustumCulled = false;
      object.renderOrder = OVER_SPLATS;
      object.visible = false;
      stage.world.add(object);
    }
    stage.beforeDraw.push(() => {
      this.dots.material.size = DOT_PX * stage.renderer.getPixelRatio();
      return false;
    });
  }

  // The first and the second point (world frame) make a line, the third begins the next.
  add(point) {
    this.points.push(point.clone());
    if (this.points.length > 2 * MOST_LINES) this.points.splice(0, 2);
    this.draw();
  }

  clear() {
    this.points = [];
    this.draw();
  }

  get distances() {
    const found = [];
    for (let at = 0; at + 1 < this.points.length; at += 2) found.push(this.points[at].distanceTo(this.points[at + 1]));
    return found;
  }

  draw() {
    const pairs = this.points.slice(0, 2 * Math.floor(this.points.length / 2));
    this.lines.geometry.dispose();
    this.lines.geometry = new LineSegmentsGeometry();
    this.lines.visible = pairs.length > 0;
    if (pairs.length) this.lines.geometry.setPositions(pairs.flatMap((point) => point.toArray()));
    this.dots.geometry.dispose();
    this.dots.geometry = new THREE.BufferGeometry().setFromPoints(this.points);
    this.dots.visible = this.points.length > 0;
    this.labels.set("measure", this.distances.map((distance, at) => ({
      text: this.length(distance),
      place: pairs[2 * at].clone().add(pairs[2 * at + 1]).multiplyScalar(0.5),
      weight: 1e12,
      look: "distance",
    })));
    this.stage.redraw();
  }
}
