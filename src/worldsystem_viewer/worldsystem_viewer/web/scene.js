// SPDX-License-Identifier: Apache-2.0
// The 3D stage: renderer, lights, ground grid, orbit controls, and a loop that draws on demand.

import * as THREE from "./vendor/three.module.min.js";
import { CSS2DRenderer, OrbitControls } from "./vendor/three.module.min.js";

const CALM_RAD = 0.05; // an estimate that wavers by less must not make the view tremble
const IDLE_UP = [0, -1, 0]; // the first camera's frame: x right, y down, z forward

export class Stage {
  constructor(element) {
    this.element = element;
    this.renderer = new THREE.WebGLRenderer({ antialias: true, alpha: true, powerPreference: "high-performance" });
    this.renderer.setPixelRatio(Math.min(devicePixelRatio, 2));
    this.labels = new CSS2DRenderer();
    this.labels.domElement.className = "labels";
    element.append(this.renderer.domElement, this.labels.domElement);
    this.scene = new THREE.Scene();
    this.world = new THREE.Group(); // everything in the world frame hangs here
    this.scene.add(this.world);
    this.camera = new THREE.PerspectiveCamera(50, 1, 0.01, 5000);
    this.camera.position.set(2.5, 2, 4);
    this.controls = new OrbitControls(this.camera, this.renderer.domElement);
    this.controls.enableDamping = true;
    this.controls.dampingFactor = 0.12;
    this.controls.addEventListener("change", () => this.redraw());
    this.beforeDraw = [];
    this.frames = 0;
    this.addLights();
    this.turnUpright(IDLE_UP);
    addEventListener("resize", () => this.resize());
    document.addEventListener("visibilitychange", () => this.redraw());
    this.resize();
  }

  addLights() {
    this.scene.add(new THREE.HemisphereLight(0xffffff, 0x6b7280, 2.2));
    const sun = new THREE.DirectionalLight(0xfff4e2, 1.5);
    sun.position.set(0.6, 1, 0.8);
    this.scene.add(sun);
  }

  // Turn the world so that `up` (a direction in the world frame) points up on the screen.
  turnUpright(up) {
    const from = new THREE.Vector3(...up).normalize();
    if (from.lengthSq() === 0 || (this.up && this.up.angleTo(from) < CALM_RAD)) return;
    this.up = from;
    if (from.y < -0.9999) this.world.quaternion.setFromAxisAngle(new THREE.Vector3(1, 0, 0), Math.PI);
    else this.world.quaternion.setFromUnitVectors(from, new THREE.Vector3(0, 1, 0));
    this.world.updateMatrixWorld(true);
    this.redraw();
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.element;
    this.renderer.setSize(width, height);
    this.labels.setSize(width, height);
    this.camera.aspect = width / Math.max(height, 1);
    this.camera.updateProjectionMatrix();
    this.redraw();
  }

  redraw() {
    if (this.pending || document.hidden) return;
    this.pending = requestAnimationFrame(() => {
      this.pending = undefined;
      this.draw();
    });
  }

  draw() {
    let busy = false;
    for (const step of this.beforeDraw) busy = step() || busy;
    this.controls.update();
    this.renderer.render(this.scene, this.camera);
    this.labels.render(this.scene, this.camera);
    this.frames += 1;
    if (busy) this.redraw();
  }

  // Look at the box (THREE.Box3 in the world frame) from behind and above.
  show(box) {
    if (box.isEmpty()) return;
    const seen = box.clone().applyMatrix4(this.world.matrixWorld);
    const sphere = seen.getBoundingSphere(new THREE.Sphere());
    const distance = (0.62 * sphere.radius) / Math.sin((0.5 * this.camera.fov * Math.PI) / 180);
    const direction = new THREE.Vector3(0.55, 0.6, 0.85).normalize();
    this.controls.target.copy(sphere.center);
    this.camera.position.copy(sphere.center).addScaledVector(direction, distance);
    this.camera.near = distance / 500;
    this.camera.far = distance * 50;
    this.camera.updateProjectionMatrix();
    this.redraw();
  }
}
