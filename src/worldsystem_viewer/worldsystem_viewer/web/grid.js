// SPDX-License-Identifier: Apache-2.0
// The ground: a grid that fades into the distance, with squares of a round size.

import * as THREE from "./vendor/three.module.min.js";

const VERTEX = `
varying vec3 place;
void main() {
  vec4 there = modelMatrix * vec4(position, 1.0);
  place = there.xyz;
  gl_Position = projectionMatrix * viewMatrix * there;
}`;
const FRAGMENT = `
varying vec3 place;
uniform vec3 colour;
uniform vec2 centre;
uniform float square;
uniform float reach;
float line(float size) {
  vec2 at = place.xz / size;
  vec2 width = fwidth(at);
  vec2 near = abs(fract(at - 0.5) - 0.5) / max(width, 1e-6);
  float drawn = 1.0 - min(min(near.x, near.y), 1.0);
  return drawn * (1.0 - smoothstep(0.2, 0.9, max(width.x, width.y)));
}
void main() {
  float far = 1.0 - smoothstep(0.35, 1.0, distance(place.xz, centre) / reach);
  float strength = max(0.16 * line(square), 0.36 * line(square * 5.0));
  gl_FragColor = vec4(colour, strength * far);
  if (gl_FragColor.a < 0.004) discard;
}`;

export class Grid {
  constructor(stage) {
    this.stage = stage;
    this.square = 0;
    this.material = new THREE.ShaderMaterial({
      vertexShader: VERTEX,
      fragmentShader: FRAGMENT,
      transparent: true,
      depthWrite: false,
      side: THREE.DoubleSide,
      uniforms: { colour: { value: new THREE.Color() }, centre: { value: new THREE.Vector2() }, square: { value: 1 }, reach: { value: 1 } },
    });
    this.plane = new THREE.Mesh(new THREE.PlaneGeometry(1, 1).rotateX(-Math.PI / 2), this.material);
    this.plane.renderOrder = -1;
    this.plane.visible = false;
    this.shown = true;
    stage.scene.add(this.plane);
    this.paint();
  }

  paint() {
    const text = getComputedStyle(this.stage.element).getPropertyValue("--grid");
    const probe = document.createElement("i"); // light-dark() is resolved only in a colour property
    probe.style.color = text;
    this.stage.element.append(probe);
    const [r, g, b] = getComputedStyle(probe).color.match(/[\d.]+/g).map(Number);
    probe.remove();
    this.material.uniforms.colour.value.setRGB(r / 255, g / 255, b / 255);
    this.stage.redraw();
  }

  // Under the box (THREE.Box3 in the stage's frame).
  lieUnder(box) {
    if (box.isEmpty()) return;
    const extent = Math.max(box.max.x - box.min.x, box.max.z - box.min.z, 1e-3);
    this.square = roundSize(extent / 16);
    const reach = 1.5 * extent;
    const { centre, square, reach: far } = this.material.uniforms;
    centre.value.set(0.5 * (box.min.x + box.max.x), 0.5 * (box.min.z + box.max.z));
    square.value = this.square;
    far.value = reach;
    this.plane.position.set(centre.value.x, box.min.y, centre.value.y);
    this.plane.scale.set(2 * reach, 1, 2 * reach);
    this.plane.visible = this.shown;
    this.ready = true;
  }

  show(visible) {
    this.shown = visible;
    this.plane.visible = visible && Boolean(this.ready);
  }
}

function roundSize(size) {
  const power = 10 ** Math.floor(Math.log10(size));
  return [1, 2, 5, 10].find((step) => step * power >= size) * power;
}
