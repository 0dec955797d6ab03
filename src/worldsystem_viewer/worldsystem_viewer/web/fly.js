// SPDX-License-Identifier: Apache-2.0
// Flying: keys move the view in every mode; in fly mode dragging looks around, two fingers go ahead.

import * as THREE from "./vendor/three.module.min.js";

export const TYPED_INTO = "input:not([type=range]), textarea"; // keys are text there
const AXES = { KeyW: [2, -1], KeyS: [2, 1], KeyA: [0, -1], KeyD: [0, 1], KeyQ: [1, -1], KeyE: [1, 1] };
const CROSSINGS_PER_S = 0.35; // of the world's radius
const FAST = 4;
const LOOK_RAD_PER_PX = 0.0032;
const STEEPEST_RAD = 1.5;

export class Flight {
  constructor(stage) {
    this.stage = stage;
    this.looking = false;
    this.keys = new Set();
    this.fingers = new Map();
    addEventListener("keydown", (event) => this.press(event));
    addEventListener("keyup", ({ code, shiftKey }) => {
      this.keys.delete(code);
      this.fast = shiftKey;
    });
    addEventListener("blur", () => this.keys.clear());
    const canvas = stage.renderer.domElement;
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.drag(event));
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, ({ pointerId }) => this.fingers.delete(pointerId));
    }
    canvas.addEventListener("wheel", ({ deltaY }) => this.looking && this.move(new THREE.Vector3(0, 0, deltaY * 0.0004 * stage.radius)), { passive: true });
  }

  press({ code, target, shiftKey, ctrlKey, metaKey, altKey }) {
    this.fast = shiftKey;
    if (!AXES[code] || ctrlKey || metaKey || altKey || target.matches?.(TYPED_INTO)) return;
    if (this.keys.size === 0) this.last = undefined;
    this.keys.add(code);
    this.stage.userMoves();
    this.stage.redraw();
  }

  // Returns whether keys are held.
  step(now) {
    if (this.keys.size === 0) return false;
    const seconds = Math.min(0.1, (now - (this.last ?? now)) / 1000);
    this.last = now;
    const way = new THREE.Vector3();
    for (const code of this.keys) way.setComponent(AXES[code][0], way.getComponent(AXES[code][0]) + AXES[code][1]);
    this.move(way.normalize().multiplyScalar(seconds * CROSSINGS_PER_S * this.stage.radius * (this.fast ? FAST : 1)));
    return true;
  }

  // `way` is right, up (of the world), backwards.
  move(way) {
    const { camera, controls } = this.stage;
    const right = new THREE.Vector3().setFromMatrixColumn(camera.matrixWorld, 0);
    const back = new THREE.Vector3().setFromMatrixColumn(camera.matrixWorld, 2);
    const step = right.multiplyScalar(way.x).addScaledVector(back, way.z);
    step.y += way.y;
    camera.position.add(step);
    controls.target.add(step);
    this.stage.redraw();
  }

  down(event) {
    if (!this.looking) return;
    this.stage.userMoves();
    event.target.setPointerCapture(event.pointerId);
    this.fingers.set(event.pointerId, [event.clientX, event.clientY]);
  }

  drag({ pointerId, clientX, clientY }) {
    const before = this.fingers.get(pointerId);
    if (!this.looking || !before) return;
    const [dx, dy] = [clientX - before[0], clientY - before[1]];
    this.fingers.set(pointerId, [clientX, clientY]);
    if (this.fingers.size > 1) {
      const unit = 0.004 * this.stage.radius;
      this.move(new THREE.Vector3(-0.5 * dx * unit, 0, 0.5 * dy * unit));
      return;
    }
    const { camera, controls } = this.stage;
    const turn = new THREE.Euler().setFromQuaternion(camera.quaternion, "YXZ");
    turn.y += dx * LOOK_RAD_PER_PX;
    turn.x = Math.max(-STEEPEST_RAD, Math.min(STEEPEST_RAD, turn.x + dy * LOOK_RAD_PER_PX));
    turn.z = 0;
    camera.quaternion.setFromEuler(turn);
    const distance = camera.position.distanceTo(controls.target);
    controls.target.copy(camera.position).addScaledVector(camera.getWorldDirection(new THREE.Vector3()), distance);
    this.stage.redraw();
  }
}
