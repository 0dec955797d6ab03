// SPDX-License-Identifier: Apache-2.0
// Names that hang on places in the world; where two would overlap, the more important one is shown.

import * as THREE from "./vendor/three.module.min.js";

const MOST_SHOWN = 40;
const HEIGHT_PX = 22;
const MARGIN_PX = 4;

export class Labels {
  constructor(stage) {
    this.stage = stage;
    this.element = document.createElement("div");
    this.element.id = "labels";
    stage.element.append(this.element);
    this.tags = [];
    stage.afterDraw.push(() => this.place());
  }

  // `tags`: { text, colour, place (Vector3 in the world frame), weight, look } by name.
  set(owner, tags) {
    const spare = new Map(); // nodes that look the same are used again
    for (const tag of this.tags) {
      if (tag.owner !== owner || !tag.node) continue;
      const alike = spare.get(appearance(tag)) ?? [];
      spare.set(appearance(tag), [...alike, tag.node]);
    }
    this.tags = this.tags.filter((tag) => tag.owner !== owner);
    for (const tag of tags) this.tags.push({ ...tag, owner, node: spare.get(appearance(tag))?.pop() });
    for (const node of [...spare.values()].flat()) node.remove();
    this.tags.sort((a, b) => b.weight - a.weight);
    this.stage.redraw();
  }

  place() {
    const { clientWidth: width, clientHeight: height } = this.element;
    const taken = [];
    const point = new THREE.Vector3();
    let shown = 0;
    for (const tag of this.tags) {
      point.copy(tag.place).applyMatrix4(this.stage.world.matrixWorld).project(this.stage.camera);
      const x = (0.5 + 0.5 * point.x) * width;
      const y = (0.5 - 0.5 * point.y) * height;
      const half = 0.5 * (tag.text.length * 7 + 30);
      const box = [x - half - MARGIN_PX, y - HEIGHT_PX - MARGIN_PX, x + half + MARGIN_PX, y + MARGIN_PX];
      const fits = shown < MOST_SHOWN && Math.abs(point.z) < 1 && x > 0 && x < width && y > 0 && y < height
        && !taken.some((other) => box[0] < other[2] && box[2] > other[0] && box[1] < other[3] && box[3] > other[1]);
      if (fits) {
        taken.push(box);
        shown += 1;
        tag.node ??= this.node(tag);
        tag.node.style.transform = `translate(${Math.round(x)}px, ${Math.round(y)}px) translate(-50%, -100%)`;
      }
      if (tag.node) tag.node.hidden = !fits;
    }
  }

  node({ text, colour, look }) {
    const node = document.createElement("div");
    node.className = `label ${look ?? ""}`;
    if (colour) {
      const dot = document.createElement("i");
      dot.style.background = colour;
      node.append(dot);
    }
    node.append(text);
    this.element.append(node);
    return node;
  }
}

function appearance({ text, colour, look }) {
  return `${text}\n${colour}\n${look}`;
}
