// SPDX-License-Identifier: Apache-2.0
// The bar of numbers, and the chips that say how things stand.

const LONG_SILENCE_MS = 60_000;

export class StatusBar {
  constructor(bar, chips) {
    this.bar = bar;
    this.chips = chips;
    this.cells = new Map();
    this.values = {};
    this.stampMs = null;
  }

  connection(state) {
    const looks = { connected: ["good", "live"], connecting: ["warn", "connecting"], lost: ["bad", "reconnecting"] };
    chip(this.chips.connection, ...looks[state]);
  }

  pose({ state, scale, stamp_ns }) {
    const looks = { tracked: "good", lost: "bad", initialising: "warn" };
    chip(this.chips.tracking, looks[state] ?? "warn", state);
    chip(this.chips.scale, scale === "metric" ? "good" : "warn", scale === "metric" ? "metric" : "scale unknown");
    this.latencyMs = Date.now() - Number(stamp_ns) / 1e6;
  }

  // Rates are counted over the time since the last call.
  show({ drawn, poses, keyframes, triangles, objects, bytes }) {
    const now = performance.now();
    const seconds = this.last ? (now - this.last.now) / 1000 : 0;
    const rate = (name, value) => (seconds > 0 ? (value - this.last[name]) / seconds : 0);
    const latency = this.values.latency_ms ?? (inRange(this.latencyMs) ? this.latencyMs : null);
    this.cell("Input", `${number(this.values.fps ?? rate("poses", poses), 1)} fps`);
    this.cell("Drawn", `${number(rate("drawn", drawn))} fps`);
    this.cell("Keyframes", number(this.values.keyframes ?? keyframes));
    this.cell("Triangles", compact(triangles));
    this.cell("Objects", number(objects));
    this.cell("Latency", latency === null ? "–" : `${number(latency)} ms`);
    this.cell("Stream", `${number(rate("bytes", bytes) / 1024)} kB/s`);
    this.cell("Dropped", number(this.values.dropped ?? this.values.viewer_dropped ?? 0));
    this.last = { now, drawn, poses, bytes };
  }

  cell(name, text) {
    let value = this.cells.get(name);
    if (!value) {
      const box = document.createElement("div");
      const term = document.createElement("dt");
      term.textContent = name;
      value = document.createElement("dd");
      box.append(term, value);
      this.bar.append(box);
      this.cells.set(name, value);
    }
    if (value.textContent !== text) value.textContent = text;
  }
}

function chip(element, state, text) {
  element.hidden = false;
  element.dataset.state = state;
  element.textContent = text;
}

function inRange(ms) {
  return ms !== undefined && ms >= 0 && ms < LONG_SILENCE_MS;
}

function number(value, digits = 0) {
  return Number(value).toFixed(digits);
}

function compact(value) {
  if (value < 10_000) return String(value);
  return value < 1e6 ? `${(value / 1e3).toFixed(1)} k` : `${(value / 1e6).toFixed(2)} M`;
}
