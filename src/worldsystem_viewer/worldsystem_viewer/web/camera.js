// SPDX-License-Identifier: Apache-2.0
// The camera now, the keyframes before it, and the view that follows.

import * as THREE from "./vendor/three.module.min.js";
import { LineMaterial, LineSegments2, LineSegmentsGeometry } from "./vendor/three.module.min.js";

const CORNERS = [[-1, -1], [1, -1], [1, 1], [-1, 1]];

export class CameraLayer {
  constructor(stage) {
    this.stage = stage;
    this.shape = { x: 0.5, y: 0.3 }; // half picture at depth 1
    this.size = 0.2;
    this.following = false;
    this.showKeyframes = true;
    this.world_from_cam = null;
    this.now = lines(0x4f8cff, 3);
    this.now.matrixAutoUpdate = false;
    this.keyframes = lines(0x8fa3bd, 1.2);
    this.keyframes.material.transparent = true;
    this.keyframes.material.opacity = 0.55;
    stage.world.add(this.now, this.keyframes);
    stage.beforeDraw.push(() => this.chase());
    stage.controls.addEventListener("start", () => this.onUserMoves?.());
  }

  pose({ world_from_cam }) {
    this.world_from_cam = new THREE.Matrix4().set(...world_from_cam);
    this.now.matrix.copy(this.world_from_cam);
    this.now.matrixWorldNeedsUpdate = true;
    this.now.visible = true;
    if (!this.now.drawable) this.reshape();
    this.stage.redraw();
  }

  frames({ width, height, fx, fy, world_from_cam }) {
    if (fx > 0) this.shape = { x: (0.5 * width) / fx, y: (0.5 * height) / fy };
    this.poses = world_from_cam;
    this.reshape();
  }

  // Frusta are drawn relative to the extent of what is there, since scale may be unknown.
  scaleTo(extent) {
    const size = Math.max(1e-3, 0.035 * extent);
    if (size < 1.3 * this.size && size > 0.7 * this.size) return;
    this.size = size;
    this.reshape();
  }

  reshape() {
    setPositions(this.now, frustum(this.shape, this.size));
    const small = frustum(this.shape, 0.6 * this.size);
    const count = this.poses ? this.poses.length / 16 : 0;
    const positions = new Float32Array(count * small.length);
    const matrix = new THREE.Matrix4();
    const point = new THREE.Vector3();
    for (let k = 0; k < count; k += 1) {
      matrix.set(...this.poses.subarray(16 * k, 16 * k + 16));
      for (let i = 0; i < small.length; i += 3) {
        point.fromArray(small, i).applyMatrix4(matrix).toArray(positions, k * small.length + i);
      }
    }
    setPositions(this.keyframes, positions);
    this.keyframes.visible = this.showKeyframes && this.keyframes.drawable;
    this.stage.redraw();
  }

  // Keep behind and above the camera; returns whether the view is still moving.
  chase() {
    if (!this.following || !this.world_from_cam) return false;
    const { camera, controls, world } = this.stage;
    const matrix = world.matrixWorld.clone().multiply(this.world_from_cam);
    const unit = 6 * this.size;
    const eye = new THREE.Vector3(0, 0, -1.6 * unit).applyMatrix4(matrix);
    eye.y += 0.7 * unit;
    const target = new THREE.Vector3(0, 0, 1.5 * unit).applyMatrix4(matrix);
    const rest = camera.position.distanceTo(eye);
    camera.position.lerp(eye, 0.15);
    controls.target.lerp(target, 0.15);
    return rest > 0.01 * unit;
  }

  clear() {
    this.poses = null;
    this.world_from_cam = null;
    this.now.visible = false;
    this.reshape();
  }
}

function frustum({ x, y }, size) {
  const corners = CORNERS.map(([sx, sy]) => [sx * x * size, sy * y * size, size]);
  const segments = corners.flatMap((corner, i) => [[0, 0, 0], corner, corner, corners[(i + 1) % 4]]);
  const top = [0, -1.35 * y * size, size]; // a mark above the picture shows which way is up
  segments.push(corners[0], top, top, corners[1]);
  return new Float32Array(segments.flat());
}

function lines(color, linewidth) {
  const object = new LineSegments2(new LineSegmentsGeometry(), new LineMaterial({ color, linewidth }));
  object.frustumCulled = false;
  object.visible = false; // nothing to draw yet
  return object;
}

function setPositions(object, positions) {
  object.geometry.dispose();
  object.geometry = new LineSegmentsGeometry();
  if (positions.length > 0) object.geometry.setPositions(positions);
  object.drawable = positions.length > 0;
}
