// SPDX-License-Identifier: Apache-2.0
// The camera now with its picture in it, the keyframes before it, and the view that follows.

import * as THREE from "./vendor/three.module.min.js";
import { LineMaterial, LineSegments2, LineSegmentsGeometry } from "./vendor/three.module.min.js";

const CORNERS = [[-1, -1], [1, -1], [1, 1], [-1, 1]];
const MOST_FRUSTA = 400; // of more keyframes every n-th is drawn

export class CameraLayer {
  constructor(stage) {
    this.stage = stage;
    this.shape = { x: 0.5, y: 0.3 }; // half picture at depth 1
    this.size = 0.2;
    this.film = this.proportions = NaN; // width by height of the pictures, and of keyframes
    this.following = false;
    this.showKeyframes = true;
    this.pictureShown = true;
    this.poses = new Map();
    this.world_from_cam = null;
    this.now = lines(0x2f7bff, 3);
    this.now.matrixAutoUpdate = false;
    this.picture = new THREE.Mesh(new THREE.BufferGeometry(), new THREE.MeshBasicMaterial({ side: THREE.DoubleSide, transparent: true, opacity: 0.92 }));
    this.picture.visible = false;
    this.now.add(this.picture);
    this.keyframes = lines(0x7f93b3, 1);
    this.keyframes.material.transparent = true;
    this.keyframes.material.opacity = 0.5;
    stage.world.add(this.now, this.keyframes);
    stage.beforeDraw.push(() => this.reshape(), () => this.chase());
  }

  pose({ world_from_cam, state }) {
    this.world_from_cam = new THREE.Matrix4().set(...world_from_cam);
    this.now.matrix.copy(this.world_from_cam);
    this.now.matrixWorldNeedsUpdate = true;
    this.now.material.color.set(state === "lost" ? 0xe5484d : 0x2f7bff);
    if (!this.now.visible) this.dirty = true;
    this.now.visible = true;
    this.stage.redraw();
  }

  frames({ width, height, fx, fy, removed, id, world_from_cam }) {
    if (fx > 0) this.shape = { x: (0.5 * width) / fx, y: (0.5 * height) / fy };
    if (fx > 0) this.proportions = width / height;
    for (const gone of removed) this.poses.delete(gone);
    for (let at = 0; at < id.length; at += 1) this.poses.set(id[at], world_from_cam.slice(16 * at, 16 * at + 16));
    this.touch();
  }

  // The newest picture (ImageBitmap) fills the far end of the frustum.
  show(bitmap) {
    this.picture.material.map?.dispose();
    const texture = new THREE.Texture(bitmap);
    texture.flipY = false;
    texture.colorSpace = THREE.SRGBColorSpace;
    texture.generateMipmaps = false;
    texture.minFilter = THREE.LinearFilter;
    texture.needsUpdate = true;
    const first = !this.picture.material.map;
    this.picture.material.map = texture;
    if (first) this.picture.material.needsUpdate = true;
    if (this.film !== bitmap.width / bitmap.height) {
      this.film = bitmap.width / bitmap.height;
      this.shapePicture();
    }
    this.picture.visible = this.pictureShown;
    if (!this.stage.software) this.stage.redraw();
  }

  showPicture(on) {
    this.pictureShown = on;
    this.picture.visible = on && Boolean(this.picture.material.map);
    this.stage.redraw();
  }

  // Frusta are drawn relative to the extent of what is there, since scale may be unknown.
  scaleTo(extent) {
    const size = Math.max(1e-3, 0.045 * extent);
    if (size < 1.3 * this.size && size > 0.7 * this.size) return;
    this.size = size;
    this.touch();
  }

  touch() {
    this.dirty = true;
    this.stage.redraw();
  }

  reshape() {
    if (!this.dirty) return false;
    this.dirty = false;
    setPositions(this.now, frustum(this.shape, this.size));
    this.shapePicture();
    const small = frustum(this.shape, 0.3 * this.size);
    const every = Math.ceil(this.poses.size / MOST_FRUSTA) || 1;
    const shown = [...this.poses.values()].filter((_, at) => at % every === 0);
    const positions = new Float32Array(shown.length * small.length);
    const matrix = new THREE.Matrix4();
    const point = new THREE.Vector3();
    shown.forEach((pose, k) => {
      matrix.set(...pose);
      for (let i = 0; i < small.length; i += 3) {
        point.fromArray(small, i).applyMatrix4(matrix).toArray(positions, k * small.length + i);
      }
    });
    setPositions(this.keyframes, positions);
    this.keyframes.visible = this.showKeyframes && this.keyframes.drawable;
    return false;
  }

  shapePicture() {
    const wider = this.film / this.proportions; // a keyframe may show the middle of its picture alone
    const [across, down] = Math.max(wider, 1 / wider) > 1.1 ? [Math.max(1, wider), Math.max(1, 1 / wider)] : [1, 1];
    const [wide, high] = [across * this.shape.x * this.size, down * this.shape.y * this.size];
    const corners = CORNERS.map(([x, y]) => [x * wide, y * high, this.size]);
    const geometry = new THREE.BufferGeometry();
    geometry.setAttribute("position", new THREE.Float32BufferAttribute(corners.flat(), 3));
    geometry.setAttribute("uv", new THREE.Float32BufferAttribute([0, 0, 1, 0, 1, 1, 0, 1], 2));
    geometry.setIndex([0, 1, 2, 0, 2, 3]);
    this.picture.geometry.dispose();
    this.picture.geometry = geometry;
  }

  // Keep behind and above the camera; returns whether the view is still moving.
  chase() {
    if (!this.following || !this.world_from_cam) return false;
    const { camera, controls, world } = this.stage;
    const matrix = world.matrixWorld.clone().multiply(this.world_from_cam);
    const unit = 4.5 * this.size;
    const eye = new THREE.Vector3(0, 0, -1.6 * unit).applyMatrix4(matrix);
    eye.y += 0.7 * unit;
    const target = new THREE.Vector3(0, 0, 1.5 * unit).applyMatrix4(matrix);
    const rest = camera.position.distanceTo(eye);
    camera.position.lerp(eye, 0.12);
    controls.target.lerp(target, 0.12);
    return rest > 0.01 * unit;
  }

  clear() {
    this.poses.clear();
    this.world_from_cam = null;
    this.now.visible = false;
    this.picture.material.map?.dispose();
    this.picture.material.map = null;
    this.picture.visible = false;
    this.touch();
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
