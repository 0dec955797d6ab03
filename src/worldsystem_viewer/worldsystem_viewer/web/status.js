// SPDX-License-Identifier: Apache-2.0
// The bar of numbers, and the chips that say how things stand.

const LONG_SILENCE_MS = 60_000;

export class StatusBar {
  constructor(bar, chips) {
    this.bar = bar;
    this.chips = chips;
    this.cells = new Map();
    this.values = {};
    this.metric = false;
    this.state = "connecting";
    this.past = false;
  }

  connection(state) {
    this.state = state;
    document.body.dataset.connection = state;
    this.showConnection();
  }

  looksBack(past) {
    this.past = past;
    this.showConnection();
  }

  showConnection() {
    const looks = { connected: ["good", "live"], connecting: ["warn", "connecting"], lost: ["bad", "reconnecting"] };
    const past = this.past && this.state === "connected";
    chip(this.chips.connection, ...(past ? ["past", "looking back"] : looks[this.state]));
  }

  pose({ state, scale, stamp_ns }) {
    const looks = { tracked: "good", lost: "bad", initialising: "warn" };
    chip(this.chips.tracking, looks[state] ?? "warn", state === "tracked" ? "tracking" : state);
    this.metric = scale === "metric";
    chip(this.chips.scale, this.metric ? "good" : "warn", this.metric ? "metres" : "scale unknown");
    this.chips.scale.title = this.metric ? "Lengths are in metres" : "Nothing has told the size yet: lengths are in units";
    this.latencyMs = Date.now() - Number(stamp_ns) / 1e6;
  }

  // What a server told that may be gone.
  forget() {
    this.values = {};
    this.metric = false;
    this.latencyMs = undefined;
    for (const element of [this.chips.tracking, this.chips.scale]) element.hidden = true;
  }

  // A length in words; without `unit` the number alone, and of null the unit alone.
  length(value, unit = true) {
    const name = this.metric ? " m" : " u";
    if (value === null) return name;
    const digits = value >= 100 ? 0 : value >= 10 ? 1 : 2;
    return value.toFixed(digits) + (unit ? name : "");
  }

  // Rates are counted over the time since the last call.
  show({ drawn, poses, keyframes, triangles, objects, bytes, grid }) {
    const now = performance.now();
    const seconds = this.last ? (now - this.last.now) / 1000 : 0;
    const rate = (name, value) => (seconds > 0 ? (value - this.last[name]) / seconds : 0);
    const latency = this.values.latency_ms ?? (inRange(this.latencyMs) ? this.latencyMs : null);
    const dropped = this.values.dropped ?? this.values.viewer_dropped ?? 0;
    this.cell("Video", number(this.values.fps ?? rate("poses", poses), 1), "fps", "Pictures that the map takes in");
    this.cell("Latency", ...(latency === null ? ["–", ""] : millis(latency)), "From the picture's capture to the map");
    this.cell("Dropped", number(dropped), "", "Pictures let go, all reasons together");
    this.cell("Surface", ...compact(triangles), "Triangles that this page has");
    this.cell("Objects", number(objects), "", "Things with a name in the map");
    this.cell("Keyframes", number(this.values.keyframes ?? keyframes), "", "Pictures that the map is made of");
    this.cell("Stream", ...line(8 * rate("bytes", bytes)), "What this page takes of its line");
    this.cell("Drawn", number(rate("drawn", drawn)), "fps", "Pictures that this page draws: only when something moves");
    if (grid) this.cell("Grid", String(Number(grid.toPrecision(2))), this.length(null).trim(), "A square of the ground grid");
    this.last = { now, drawn, poses, bytes };
  }

  cell(name, text, unit = "", title = "") {
    let cell = this.cells.get(name);
    if (!cell) {
      const box = document.createElement("div");
      box.title = title;
      const term = document.createElement("small");
      term.textContent = name;
      cell = { value: document.createElement("b"), unit: document.createElement("i"), text: document.createTextNode("") };
      cell.value.append(cell.text, cell.unit);
      box.append(term, cell.value);
      this.bar.append(box);
      this.cells.set(name, cell);
    }
    if (cell.text.data !== text) cell.text.data = text;
    if (cell.unit.textContent !== unit) cell.unit.textContent = unit;
  }
}

function chip(element, state, text) {
  element.hidden = false;
  element.dataset.state = state;
  if (element.textContent !== text) element.textContent = text;
}

function inRange(ms) {
  return ms !== undefined && ms >= 0 && ms < LONG_SILENCE_MS;
}

function number(value, digits = 0) {
  return Number(value).toFixed(digits);
}

function millis(ms) {
  return ms < 1000 ? [number(ms), "ms"] : [number(ms / 1000, 1), "s"];
}

function line(bits) {
  return bits < 1e6 ? [number(bits / 1e3), "kbit/s"] : [number(bits / 1e6, bits < 1e8 ? 1 : 0), "Mbit/s"];
}

function compact(value) {
  if (value < 10_000) return [String(value), "△"];
  return value < 1e6 ? [number(value / 1e3), "k △"] : [number(value / 1e6, 2), "M △"];
}
