// SPDX-License-Identifier: Apache-2.0
// Points of all keyframes: each cloud hangs on its keyframe and moves when that is corrected.

import { linear } from "./mesh_geometry.js";
import * as THREE from "./vendor/three.module.min.js";

const MOST_POINTS = 2_000_000; // then the clouds of the oldest keyframes go, to 90 %
const POINT_PX = 2.2;

export class PointsLayer {
  constructor(stage) {
    this.stage = stage;
    this.group = new THREE.Group();
    this.group.visible = false;
    this.material = new THREE.PointsMaterial({ sizeAttenuation: false, vertexColors: true });
    this.clouds = new Map();
    this.keyframes = new Map();
    this.count = 0;
    stage.world.add(this.group);
    stage.beforeDraw.push(() => {
      this.material.size = POINT_PX * stage.renderer.getPixelRatio();
      return false;
    });
  }

  update({ keyframe_id, step, low, points, colours }) {
    this.drop(keyframe_id);
    const geometry = new THREE.BufferGeometry();
    geometry.setAttribute("position", new THREE.BufferAttribute(points.slice(), 3));
    geometry.setAttribute("color", new THREE.BufferAttribute(linear(colours), 3, true));
    const cloud = new THREE.Points(geometry, this.material);
    cloud.matrixAutoUpdate = false;
    cloud.visible = false; // until it has a place
    cloud.frustumCulled = false; // three would compute bounds before the matrix is known
    cloud.grid = new THREE.Matrix4().makeTranslation(...low).scale(new THREE.Vector3(step, step, step));
    this.clouds.set(keyframe_id, cloud);
    this.count += points.length / 3;
    this.place(keyframe_id);
    this.group.add(cloud);
    if (this.count > MOST_POINTS) {
      for (const id of [...this.clouds.keys()].sort((one, other) => one - other)) {
        if (this.count <= 0.9 * MOST_POINTS) break;
        this.drop(id);
      }
    }
    this.stage.redraw();
  }

  // Keyframes are where they are told to be, and their points with them.
  frames({ removed, id, world_from_cam, point_scale }) {
    for (const gone of removed) {
      this.drop(gone);
      this.keyframes.delete(gone);
    }
    for (let at = 0; at < id.length; at += 1) {
      const matrix = new THREE.Matrix4().set(...world_from_cam.subarray(16 * at, 16 * at + 16));
      this.keyframes.set(id[at], matrix.scale(new THREE.Vector3().setScalar(point_scale[at])));
      this.place(id[at]);
    }
    this.stage.redraw();
  }

  place(id) {
    const cloud = this.clouds.get(id);
    const keyframe = this.keyframes.get(id);
    if (!cloud || !keyframe) return;
    cloud.matrix.multiplyMatrices(keyframe, cloud.grid);
    cloud.matrixWorldNeedsUpdate = true;
    cloud.visible = true;
  }

  drop(id) {
    const cloud = this.clouds.get(id);
    if (!cloud) return;
    this.group.remove(cloud);
    cloud.geometry.dispose();
    this.count -= cloud.geometry.getAttribute("position").count;
    this.clouds.delete(id);
  }

  clear() {
    for (const id of [...this.clouds.keys()]) this.drop(id);
    this.keyframes.clear();
    this.stage.redraw();
  }
}
