// SPDX-License-Identifier: Apache-2.0
// The 3D stage: renderer, lights, the view and how it is moved, and a loop that draws on demand.

import { Flight } from "./fly.js";
import * as THREE from "./vendor/three.module.min.js";
import { OrbitControls } from "./vendor/three.module.min.js";

const CALM_RAD = 0.05; // an estimate that wavers by less must not make the view tremble
const IDLE_UP = [0, -1, 0]; // the first camera's frame: x right, y down, z forward
const GLIDE_MS = 650;
const SLOW_MS = 60;
const LONGEST_REST_MS = 1000;
const FILL = 1.25; // of the view that a box takes when it is shown
const NEAREST = 1e-3; // of the radius: what is looked at from closer by may be cut

export class Stage {
  constructor(element) {
    this.element = element;
    this.software = drawsInSoftware();
    this.renderer = new THREE.WebGLRenderer({ antialias: !this.software, alpha: true, powerPreference: "high-performance" });
    element.append(this.renderer.domElement);
    this.scene = new THREE.Scene();
    this.world = new THREE.Group(); // everything in the world frame hangs here
    this.scene.add(this.world);
    this.camera = new THREE.PerspectiveCamera(50, 1, 0.01, 5000);
    this.camera.position.set(2.5, 2, 4);
    this.controls = new OrbitControls(this.camera, this.renderer.domElement);
    this.controls.enableDamping = true;
    this.controls.dampingFactor = 0.12;
    this.controls.addEventListener("change", () => this.redraw());
    this.controls.addEventListener("start", () => this.userMoves());
    this.flight = new Flight(this);
    this.beforeDraw = []; // each returns whether it goes on
    this.afterDraw = [];
    this.frames = 0;
    this.radius = 4; // of what is there; speeds follow it
    this.range = 4; // from the view to what is there
    this.onUserMoves = () => {};
    this.onRestored = () => {};
    this.addLights();
    this.turnUpright(IDLE_UP);
    addEventListener("resize", () => this.resize());
    document.addEventListener("visibilitychange", () => this.redraw());
    this.renderer.domElement.addEventListener("webglcontextrestored", () => this.onRestored());
    this.resize();
    this.watchPixels();
  }

  addLights() {
    // colours come from pictures and have their light in them: only enough is added to tell shape
    this.scene.add(new THREE.HemisphereLight(0xffffff, 0x8f959e, 2.5));
    this.sun = new THREE.DirectionalLight(0xfff1dc, 1.25);
    this.sun.position.set(0.5, 1, 0.7);
    this.scene.add(this.sun);
  }

  // Turn the world so that `up` (a direction in the world frame) points up on the screen: half a turn
  // about x, which does so for a level first camera, and then the least that is left. Without the
  // half turn, the least turn would be undefined just there, and swing about with every estimate.
  turnUpright(up) {
    const from = new THREE.Vector3(...up).normalize();
    if (from.lengthSq() === 0 || (this.up && this.up.angleTo(from) < CALM_RAD)) return;
    this.up = from;
    const flip = new THREE.Quaternion(1, 0, 0, 0);
    const rest = from.clone().applyQuaternion(flip);
    this.world.quaternion.setFromUnitVectors(rest, new THREE.Vector3(0, 1, 0)).multiply(flip);
    this.world.updateMatrixWorld(true);
    this.redraw();
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.element;
    this.renderer.setPixelRatio(this.software ? 1 : Math.min(devicePixelRatio, 2));
    this.renderer.setSize(width, height);
    this.camera.aspect = width / Math.max(height, 1);
    this.camera.updateProjectionMatrix();
    this.redraw();
  }

  // On another monitor, or zoomed, pixels are of another size although the window may not be.
  watchPixels() {
    const same = matchMedia(`(resolution: ${devicePixelRatio}dppx)`);
    same.addEventListener("change", () => {
      this.resize();
      this.watchPixels();
    }, { once: true });
  }

  // Draw once the browser is ready. Where it is slow, messages get as much time as drawing does.
  redraw() {
    if (this.pending || document.hidden) return;
    this.pending = true;
    if (this.restMs > 0) setTimeout(() => this.drawSoon(), this.restMs);
    else this.drawSoon();
  }

  drawSoon() {
    const asked = performance.now();
    requestAnimationFrame((now) => {
      this.pending = false;
      const late = performance.now() - asked;
      this.restMs = late > SLOW_MS ? Math.min(late, LONGEST_REST_MS) : 0;
      this.draw(now);
    });
  }

  draw(now = performance.now()) {
    let busy = this.glide(now);
    busy = this.flight.step(now) || busy;
    for (const step of this.beforeDraw) busy = step(now) || busy;
    if (this.controls.enabled) this.controls.update();
    this.renderer.render(this.scene, this.camera);
    for (const step of this.afterDraw) step();
    this.frames += 1;
    if (busy) this.redraw();
  }

  userMoves() {
    this.gliding = null;
    this.onUserMoves();
  }

  // Move the view to `position`, looking at `target`, in one smooth motion.
  glideTo(position, target) {
    this.gliding = {
      from: this.camera.position.clone(), to: position.clone(),
      fromTarget: this.controls.target.clone(), toTarget: target.clone(),
    };
    this.redraw();
  }

  glide(now) {
    const way = this.gliding;
    if (!way) return false;
    way.begun ??= now;
    const t = Math.min(1, (now - way.begun) / GLIDE_MS);
    const eased = t < 0.5 ? 4 * t ** 3 : 1 - (-2 * t + 2) ** 3 / 2;
    this.camera.position.lerpVectors(way.from, way.to, eased);
    this.controls.target.lerpVectors(way.fromTarget, way.toTarget, eased);
    if (!this.controls.enabled) this.camera.lookAt(this.controls.target);
    if (t < 1) return true;
    this.gliding = null;
    this.setRange(this.range);
    return false;
  }

  // Look at the box (THREE.Box3 in the world frame) from where the view is, or from behind and above.
  show(box, { fromHere = false } = {}) {
    if (!hasSize(box)) return;
    const centre = box.getCenter(new THREE.Vector3()).applyMatrix4(this.world.matrixWorld);
    const direction = fromHere
      ? this.camera.position.clone().sub(this.controls.target).normalize()
      : new THREE.Vector3(0.5, 0.62, 0.85).normalize();
    const distance = this.distanceTo(box, centre, direction);
    this.radius = 0.5 * box.getSize(new THREE.Vector3()).length();
    this.setRange(distance);
    this.glideTo(centre.clone().addScaledVector(direction, distance), centre);
  }

  // How far away the box's corners just fit.
  distanceTo(box, centre, direction) {
    const view = new THREE.Matrix4().lookAt(direction, new THREE.Vector3(), this.camera.up);
    const right = new THREE.Vector3().setFromMatrixColumn(view, 0);
    const above = new THREE.Vector3().setFromMatrixColumn(view, 1);
    const tall = Math.tan((0.5 * this.camera.fov * Math.PI) / 180) * FILL;
    const wide = tall * this.camera.aspect;
    let distance = 0;
    for (let c = 0; c < 8; c += 1) {
      const corner = new THREE.Vector3(c & 1 ? box.max.x : box.min.x, c & 2 ? box.max.y : box.min.y, c & 4 ? box.max.z : box.min.z);
      corner.applyMatrix4(this.world.matrixWorld).sub(centre);
      const near = corner.dot(direction);
      distance = Math.max(distance, near + Math.abs(corner.dot(right)) / wide, near + Math.abs(corner.dot(above)) / tall);
    }
    return distance;
  }

  // Have all of the box (THREE.Box3 in the world frame) in reach, from wherever the view is.
  reach(box) {
    if (this.gliding || !hasSize(box)) return;
    const centre = box.getCenter(new THREE.Vector3()).applyMatrix4(this.world.matrixWorld);
    this.radius = 0.5 * box.getSize(new THREE.Vector3()).length();
    this.setRange(Math.max(this.radius, this.camera.position.distanceTo(centre)));
  }

  // What is at `distance` is drawn, and what is looked at, which on a large map is much nearer.
  setRange(distance) {
    this.range = distance;
    const looked = this.camera.position.distanceTo(this.controls.target);
    const nearest = Math.max(looked, NEAREST * this.radius);
    this.camera.near = Math.min(distance, this.radius, nearest) / 300;
    this.camera.far = 40 * Math.max(distance, this.radius);
    this.camera.updateProjectionMatrix();
  }

  // Look at a place (in the stage's frame) from nearer by.
  focus(place, distance = 0.35 * this.camera.position.distanceTo(place)) {
    const direction = this.camera.position.clone().sub(place).normalize();
    this.glideTo(place.clone().addScaledVector(direction, distance), place);
  }

  // Look at a place from where nothing is in between: `hits(origin, direction)` says how far away
  // a ray meets the surface. From as near to the present direction as may be.
  focusClear(place, distance, hits) {
    const now = this.camera.position.clone().sub(place).normalize();
    const turn = Math.atan2(now.z, now.x);
    let best = { free: -1 };
    for (const rise of [Math.max(0.35, Math.asin(now.y)), 0.75, 1.15]) {
      for (const off of [0, 0.7, -0.7, 1.4, -1.4, 2.1, -2.1, 3.1]) {
        const flat = Math.cos(rise);
        const direction = new THREE.Vector3(flat * Math.cos(turn + off), Math.sin(rise), flat * Math.sin(turn + off));
        const eye = place.clone().addScaledVector(direction, distance);
        const free = Math.min(1, hits(eye, direction.clone().negate()) / (0.7 * distance));
        if (free > best.free + 0.05) best = { free, eye };
        if (best.free >= 1) break;
      }
      if (best.free >= 1) break;
    }
    this.glideTo(best.eye, place);
  }

  // A ray through the pixel, in the stage's frame.
  ray(clientX, clientY) {
    const { left, top, width, height } = this.renderer.domElement.getBoundingClientRect();
    const caster = new THREE.Raycaster();
    const place = new THREE.Vector2(((clientX - left) / width) * 2 - 1, 1 - ((clientY - top) / height) * 2);
    caster.setFromCamera(place, this.camera);
    return caster;
  }

  setMode(mode) {
    this.controls.enabled = mode !== "fly";
    this.flight.looking = mode === "fly";
    if (mode === "fly") return;
    const ahead = this.camera.getWorldDirection(new THREE.Vector3());
    const distance = Math.min(this.camera.position.distanceTo(this.controls.target), 2 * this.radius);
    this.controls.target.copy(this.camera.position).addScaledVector(ahead, Math.max(distance, 0.05 * this.radius));
    this.redraw();
  }
}

// Whether the box (THREE.Box3) has an extent: a single place cannot fill a view.
export function hasSize(box) {
  return !box.isEmpty() && box.max.distanceTo(box.min) > 0;
}

// Whether the browser draws without a graphics processor: then everything costly is left out.
function drawsInSoftware() {
  const gl = document.createElement("canvas").getContext("webgl");
  const told = gl?.getExtension("WEBGL_debug_renderer_info");
  const name = told ? String(gl.getParameter(told.UNMASKED_RENDERER_WEBGL)) : "";
  gl?.getExtension("WEBGL_lose_context")?.loseContext();
  return /swiftshader|llvmpipe|software|basic render/i.test(name);
}
