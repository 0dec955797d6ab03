// SPDX-License-Identifier: Apache-2.0
// What the pointer means: a click chooses or measures, a double click looks at a place.

const STILL_PX = 5;
const HOVER_MS = 80;
const BEHIND = 1.05; // times as far as the surface: a box may lie a little behind its own

export class Picker {
  constructor(stage, { mesh, objects, measure, onChoose, onMeasured }) {
    Object.assign(this, { stage, mesh, objects, measure, onChoose, onMeasured });
    this.due = 0;
    const canvas = stage.renderer.domElement;
    canvas.addEventListener("pointerdown", (event) => { this.from = [event.clientX, event.clientY]; });
    canvas.addEventListener("click", (event) => this.click(event));
    canvas.addEventListener("dblclick", (event) => this.focus(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
  }

  still({ clientX, clientY }) {
    return this.from && Math.hypot(clientX - this.from[0], clientY - this.from[1]) < STILL_PX;
  }

  click(event) {
    if (!this.still(event)) return;
    const caster = this.stage.ray(event.clientX, event.clientY);
    if (this.measure.on) {
      const place = this.mesh.pick(caster);
      if (!place) return;
      this.measure.add(this.stage.world.worldToLocal(place));
      this.onMeasured();
      return;
    }
    const wall = this.mesh.distance(caster.ray.origin, caster.ray.direction);
    this.onChoose(this.objects.pick(caster, BEHIND * wall)?.id ?? null);
  }

  focus(event) {
    if (this.measure.on) return;
    const place = this.mesh.pick(this.stage.ray(event.clientX, event.clientY));
    if (!place) return;
    this.stage.userMoves();
    this.stage.focus(place);
  }

  move(event) {
    if (event.buttons || event.pointerType === "touch" || this.measure.on || performance.now() < this.due) return;
    this.due = performance.now() + HOVER_MS;
    const item = this.objects.pick(this.stage.ray(event.clientX, event.clientY));
    this.objects.hover(item?.id ?? null);
    this.stage.element.dataset.cursor = item ? "hand" : "";
  }
}
