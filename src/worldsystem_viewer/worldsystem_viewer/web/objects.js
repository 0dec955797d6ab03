// SPDX-License-Identifier: Apache-2.0
// The objects of the map: an oriented box and a name for each.

import * as THREE from "./vendor/three.module.min.js";
import { CSS2DObject } from "./vendor/three.module.min.js";
import { colourOf } from "./colour.js";

const MOST_LABELS = 12; // every object has a box, the largest have a name: more would hide the map
const UNIT_BOX = new THREE.EdgesGeometry(new THREE.BoxGeometry(1, 1, 1));

export class ObjectsLayer {
  constructor(stage) {
    this.stage = stage;
    this.group = new THREE.Group();
    this.count = 0;
    stage.world.add(this.group);
  }

  clear() {
    for (const box of [...this.group.children]) {
      for (const label of [...box.children]) box.remove(label); // removes its HTML element as well
      box.material.dispose();
      this.group.remove(box);
    }
    this.count = 0;
    this.stage.redraw();
  }

  update({ label, id, world_from_box, size }) {
    this.clear();
    const named = largest(size, MOST_LABELS);
    for (let at = 0; at < id.length; at += 1) {
      const matrix = new THREE.Matrix4().set(...world_from_box.subarray(16 * at, 16 * at + 16));
      const extent = new THREE.Vector3().fromArray(size, 3 * at);
      const name = named.has(at) ? label[at] : "";
      this.group.add(namedBox(name, colourOf(id[at]), matrix.scale(extent)));
    }
    this.count = id.length;
    this.group.updateMatrixWorld(true);
    this.stage.redraw();
  }

  show(visible) {
    this.group.visible = visible;
    this.group.traverse((node) => {
      if (node.isCSS2DObject) node.visible = visible;
    });
    this.stage.redraw();
  }
}

// The places of the `count` boxes with the longest diagonals; `size` has three edges a box.
function largest(size, count) {
  const places = Array.from({ length: size.length / 3 }, (_, at) => at);
  const diagonal = (at) => Math.hypot(size[3 * at], size[3 * at + 1], size[3 * at + 2]);
  places.sort((a, b) => diagonal(b) - diagonal(a));
  return new Set(places.slice(0, count));
}

function namedBox(name, colour, world_from_unit) {
  const box = new THREE.LineSegments(UNIT_BOX, new THREE.LineBasicMaterial({ color: colour }));
  box.matrixAutoUpdate = false;
  box.matrix.copy(world_from_unit);
  if (!name) return box;
  const element = document.createElement("div");
  element.className = "object";
  element.textContent = name;
  element.style.background = colour;
  const tag = new CSS2DObject(element);
  box.add(tag);
  return box;
}
