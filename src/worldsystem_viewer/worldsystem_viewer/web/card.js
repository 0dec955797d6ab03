// SPDX-License-Identifier: Apache-2.0
// What is known of the chosen object: its best picture, size, and when it was seen.

const element = (id) => document.getElementById(id);

export class Card {
  // `length(value)` tells a length in words; `onClose`, `onFocus` are asked for.
  constructor({ length, onClose, onFocus }) {
    this.length = length;
    this.panel = element("card");
    this.item = null;
    this.detail = null;
    element("card-close").addEventListener("click", onClose);
    element("card-focus").addEventListener("click", onFocus);
  }

  show(item) {
    if (item.id !== this.item?.id) {
      this.detail = null;
      this.picture(null);
    }
    this.item = item;
    this.panel.hidden = false;
    this.write();
  }

  // The server's answer; one that comes too late is of no use any more.
  take(detail) {
    if (detail.id !== this.item?.id) return;
    this.detail = detail;
    this.picture(detail.jpeg.length ? new Blob([detail.jpeg], { type: "image/jpeg" }) : null);
    this.write();
  }

  close() {
    this.item = this.detail = null;
    this.panel.hidden = true;
    this.picture(null);
  }

  picture(blob) {
    if (this.url) URL.revokeObjectURL(this.url);
    this.url = blob && URL.createObjectURL(blob);
    element("card-crop").hidden = !blob;
    element("card-none").hidden = Boolean(blob);
    if (blob) element("card-crop").src = this.url;
  }

  write() {
    const { item, detail } = this;
    element("card-label").textContent = item.label;
    element("card-dot").style.background = item.colour;
    const facts = [
      ["Number", `#${item.id}`],
      ["Size", item.extent.toArray().map((edge) => this.length(edge, false)).join(" × ") + this.length(null)],
      ["Sure", `${Math.round(100 * item.score)} %`],
    ];
    if (detail) {
      facts.push(["Seen", detail.sightings === 1 ? "once" : `${detail.sightings} times`]);
      const last = detail.seen_s[detail.seen_s.length - 1];
      if (last !== undefined) facts.push(["First, last", `${moment(detail.seen_s[0])}, ${moment(last)}`]);
    }
    element("card-facts").replaceChildren(...facts.flatMap(([name, value]) => [node("dt", name), node("dd", value)]));
    this.plot();
  }

  // A bar for each time that it was seen, as high as the tracker was sure.
  plot() {
    const canvas = element("card-history");
    const { seen_s: times = [], score = [] } = this.detail ?? {};
    canvas.hidden = times.length < 2;
    if (canvas.hidden) return;
    const ratio = devicePixelRatio;
    const [width, height] = [240 * ratio, 44 * ratio];
    [canvas.width, canvas.height] = [width, height];
    const pen = canvas.getContext("2d");
    const span = Math.max(times[times.length - 1] - times[0], 1e-6);
    const style = getComputedStyle(this.panel);
    pen.fillStyle = style.color;
    pen.globalAlpha = 0.15;
    pen.fillRect(0, height - ratio, width, ratio);
    pen.globalAlpha = 0.9;
    pen.fillStyle = this.item.colour;
    times.forEach((time, at) => {
      const tall = Math.max(0.1, score[at]) * (height - 3 * ratio);
      pen.fillRect(((time - times[0]) / span) * (width - 3 * ratio), height - ratio - tall, 3 * ratio, tall);
    });
  }
}

// Wall-clock time for stamps since 1970, minutes and seconds for those of a file.
export function moment(seconds) {
  if (seconds > 1e9) return new Date(1000 * seconds).toLocaleTimeString();
  const whole = Math.max(0, seconds);
  return `${Math.floor(whole / 60)}:${(whole % 60).toFixed(1).padStart(4, "0")}`;
}

function node(kind, text) {
  const made = document.createElement(kind);
  made.textContent = text;
  return made;
}
