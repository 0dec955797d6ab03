// SPDX-License-Identifier: Apache-2.0
// Objects of the map: the corners of their boxes, their names, and the one that is chosen.

import { colourOf } from "./colour.js";
import * as THREE from "./vendor/three.module.min.js";
import { LineMaterial, LineSegments2, LineSegmentsGeometry } from "./vendor/three.module.min.js";

const ARM = 0.22; // of an edge, drawn from each corner
const FAINT = 0.16;
const UNIT_BOX = new THREE.Box3(new THREE.Vector3(-0.5, -0.5, -0.5), new THREE.Vector3(0.5, 0.5, 0.5));

export class ObjectsLayer {
  constructor(stage, labels) {
    this.stage = stage;
    this.labels = labels;
    this.items = [];
    this.matches = null; // ids, or null while nothing is looked for
    this.chosen = null;
    this.hovered = null;
    this.shown = true;
    this.material = new THREE.LineBasicMaterial({ vertexColors: true, transparent: true });
    this.boxes = new THREE.LineSegments(new THREE.BufferGeometry(), this.material);
    this.boxes.frustumCulled = false;
    this.bold = new LineSegments2(new LineSegmentsGeometry(), new LineMaterial({ linewidth: 3, vertexColors: true }));
    this.bold.frustumCulled = false;
    this.fill = new THREE.Mesh(new THREE.BoxGeometry(1, 1, 1), new THREE.MeshBasicMaterial({ transparent: true, opacity: 0.13, depthWrite: false }));
    this.fill.matrixAutoUpdate = false;
    this.group = new THREE.Group();
    this.group.add(this.boxes, this.bold, this.fill);
    stage.world.add(this.group);
    this.draw();
  }

  get count() {
    return this.items.length;
  }

  clear() {
    this.items = [];
    this.chosen = this.hovered = this.matches = null;
    this.draw();
  }

  update({ label, id, score, world_from_box, size, points, last_seen_s }) {
    this.items = Array.from(id, (number, at) => {
      const extent = new THREE.Vector3().fromArray(size, 3 * at);
      const pose = new THREE.Matrix4().set(...world_from_box.subarray(16 * at, 16 * at + 16));
      return {
        id: number, label: label[at], score: score[at], points: points[at], lastSeen: last_seen_s[at],
        extent, pose, world_from_unit: pose.clone().scale(extent), colour: colourOf(number),
      };
    });
    this.draw();
  }

  find(id) {
    return this.items.find((item) => item.id === id);
  }

  centre(item) {
    return new THREE.Vector3().setFromMatrixPosition(item.pose);
  }

  match(ids) {
    this.matches = ids && new Set(ids);
    this.draw();
  }

  choose(id) {
    if (this.chosen === id) return;
    this.chosen = id;
    this.draw();
  }

  hover(id) {
    if (this.hovered === id) return;
    this.hovered = id;
    this.draw();
  }

  show(visible) {
    this.shown = visible;
    this.draw();
  }

  // The nearest box that the ray (THREE.Raycaster) meets before `limit`, or null. Small boxes go
  // before large ones that hold them.
  pick(caster, limit = Infinity) {
    if (!this.shown) return null;
    let best = null;
    for (const item of this.items) {
      const world = this.stage.world.matrixWorld.clone().multiply(item.world_from_unit);
      const ray = caster.ray.clone().applyMatrix4(world.clone().invert());
      const hit = ray.intersectBox(UNIT_BOX, new THREE.Vector3());
      if (!hit) continue;
      const distance = hit.applyMatrix4(world).distanceTo(caster.ray.origin);
      const rank = distance + item.extent.length();
      if (distance < limit && (!best || rank < best.rank)) best = { item, rank };
    }
    return best?.item ?? null;
  }

  draw() {
    this.group.visible = this.shown;
    const special = (item) => item.id === this.chosen || item.id === this.hovered || this.matches?.has(item.id);
    const plain = this.items.filter((item) => !special(item));
    const bold = this.items.filter(special);
    setLines(this.boxes, plain, this.matches ? FAINT : 0.85);
    this.bold.geometry.dispose();
    this.bold.geometry = new LineSegmentsGeometry();
    this.bold.visible = bold.length > 0;
    if (bold.length) {
      this.bold.geometry.setPositions(bold.flatMap((item) => edges(item.world_from_unit, 0.5)));
      this.bold.geometry.setColors(bold.flatMap((item) => repeated(item.colour, 24)));
    }
    const filled = this.find(this.hovered) ?? this.find(this.chosen);
    this.fill.visible = Boolean(filled);
    if (filled) {
      this.fill.matrix.copy(filled.world_from_unit);
      this.fill.matrixWorldNeedsUpdate = true;
      this.fill.material.color.setStyle(filled.colour);
    }
    this.labels.set("objects", this.shown ? this.items.flatMap((item) => this.tag(item)) : []);
    this.stage.redraw();
  }

  tag(item) {
    const chosen = item.id === this.chosen || item.id === this.hovered;
    const match = this.matches?.has(item.id);
    if (this.matches && !match && !chosen) return [];
    const up = this.stage.up;
    const reach = 0.5 * [0, 1, 2].reduce((sum, axis) => {
      const direction = new THREE.Vector3().setFromMatrixColumn(item.world_from_unit, axis);
      return sum + Math.abs(direction.dot(up));
    }, 0);
    const place = new THREE.Vector3().setFromMatrixPosition(item.pose).addScaledVector(up, reach);
    const look = chosen ? "chosen" : match ? "match" : "object";
    const weight = item.extent.length() + (chosen ? 1e9 : match ? 1e6 : 0);
    return [{ text: item.label, colour: item.colour, place, weight, look }];
  }
}

function setLines(object, items, opacity) {
  object.geometry.dispose();
  object.geometry = new THREE.BufferGeometry();
  const positions = items.flatMap((item) => edges(item.world_from_unit, ARM));
  const colours = items.flatMap((item) => repeated(item.colour, 48));
  object.geometry.setAttribute("position", new THREE.Float32BufferAttribute(positions, 3));
  object.geometry.setAttribute("color", new THREE.Float32BufferAttribute(colours, 3));
  object.material.opacity = opacity;
  object.visible = items.length > 0;
}

// Both arms of each of the 12 edges, each `arm` of the edge long.
function edges(world_from_unit, arm) {
  const out = [];
  const point = new THREE.Vector3();
  for (let axis = 0; axis < 3; axis += 1) {
    for (let c = 0; c < 4; c += 1) {
      const corner = [0, 0, 0];
      corner[(axis + 1) % 3] = c & 1 ? 0.5 : -0.5;
      corner[(axis + 2) % 3] = c & 2 ? 0.5 : -0.5;
      for (const [from, to] of arm < 0.5 ? [[-0.5, -0.5 + arm], [0.5, 0.5 - arm]] : [[-0.5, 0.5]]) {
        for (const at of [from, to]) {
          corner[axis] = at;
          out.push(...point.fromArray(corner).applyMatrix4(world_from_unit).toArray());
        }
      }
    }
  }
  return out;
}

function repeated(colour, count) {
  const { r, g, b } = new THREE.Color().setStyle(colour);
  return Array.from({ length: count }, () => [r, g, b]).flat();
}
