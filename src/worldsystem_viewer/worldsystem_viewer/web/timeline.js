// SPDX-License-Identifier: Apache-2.0
// The slider over what was: drag it to see the world as it was then, play on from there.

import { moment } from "./card.js";

const SEEK_MS = 120;
const SHORTEST_NS = 2e9;
const PATIENCE_MS = 5000; // for the server's answer to a look back, on a thin line

export class Timeline {
  // `seek(ns or null)` tells the server; `onPast(true or false)` is called when that changes.
  constructor(panel, { slider, clock, live, play }, { seek, onPast }) {
    Object.assign(this, { panel, slider, clock, live, play, seek, onPast });
    this.span = [0, 0];
    this.at = null; // null: what is newest
    this.sought = 0;
    const tell = this.seek;
    this.seek = (ns) => {
      this.sought = performance.now();
      tell(ns);
    };
    slider.addEventListener("input", () => this.look(this.span[0] + (slider.value / 1000) * (this.span[1] - this.span[0])));
    live.addEventListener("click", () => this.look(null));
    play.addEventListener("click", () => this.toggle());
  }

  take({ first_ns, last_ns, at_ns }) {
    const answered = performance.now() - this.sought > PATIENCE_MS;
    if (this.at !== null && answered) {
      if (at_ns < 0) this.look(null); // it remembers nothing of then
      else this.at = Number(at_ns); // the nearest to what was asked: another server has other times
    }
    this.span = [Number(first_ns), Number(last_ns)];
    this.panel.hidden = this.span[1] - this.span[0] < SHORTEST_NS;
    this.draw();
  }

  // After a reconnection the server must be told again.
  refresh() {
    if (this.at !== null) this.seek(this.at);
  }

  look(ns) {
    const was = this.at !== null;
    this.at = ns;
    if (ns === null) this.stop();
    if (was !== (ns !== null)) this.onPast(ns !== null);
    this.draw();
    if (this.waiting) return;
    this.seek(ns);
    this.waiting = setTimeout(() => {
      this.waiting = null;
      if (this.at !== ns) this.seek(this.at);
    }, SEEK_MS);
  }

  toggle() {
    if (this.playing) {
      this.stop();
      return;
    }
    let last = performance.now();
    const end = this.span[0] + 0.98 * (this.span[1] - this.span[0]);
    if (this.at === null || this.at > end) this.look(this.span[0]);
    this.playing = setInterval(() => {
      const now = performance.now();
      const next = Math.max(this.at, this.span[0]) + 1e6 * (now - last); // before it nothing is known
      last = now;
      this.look(next >= this.span[1] ? null : next);
    }, 200);
    this.draw();
  }

  stop() {
    clearInterval(this.playing);
    this.playing = null;
    this.draw();
  }

  draw() {
    const [first, last] = this.span;
    const at = this.at ?? last;
    this.slider.value = last > first ? Math.round((1000 * (at - first)) / (last - first)) : 1000;
    this.clock.textContent = this.at === null ? moment(last / 1e9) : `${((at - last) / 1e9).toFixed(1)} s`;
    this.live.setAttribute("aria-pressed", String(this.at === null));
    this.play.querySelector("use").setAttribute("href", this.playing ? "#i-pause" : "#i-play");
  }
}
