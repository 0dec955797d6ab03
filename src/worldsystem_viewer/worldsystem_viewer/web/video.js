// SPDX-License-Identifier: Apache-2.0
// The live picture with the boxes of what is seen in it; what was seen is tinted in it already.

import { colourOf } from "./colour.js";

const LOST = 3;
const MOST_NAMES = 5; // of the largest; more would hide the picture

export class VideoInset {
  // `onPicture(bitmap)` for each picture, `onPick(track id)` for a click on one.
  constructor({ figure, canvas, caption, onPicture, onPick }) {
    Object.assign(this, { figure, canvas, caption, onPicture });
    this.enabled = true;
    this.tracks = null;
    this.pictures = 0;
    canvas.addEventListener("click", (event) => {
      const id = this.trackAt(event);
      if (id !== null) onPick(id);
    });
  }

  // Pictures that arrive while one is being decoded replace each other.
  async image({ jpeg, full_width, full_height }) {
    this.next = { blob: new Blob([jpeg], { type: "image/jpeg" }), full_width, full_height };
    if (this.decoding || !this.enabled) return;
    this.decoding = true;
    while (this.next) {
      const { blob, ...full } = this.next;
      this.next = null;
      try {
        const bitmap = await createImageBitmap(blob);
        const before = this.bitmap;
        this.bitmap = bitmap;
        this.full = full;
        this.pictures += 1;
        this.draw();
        this.onPicture(bitmap);
        before?.close();
      } catch (error) {
        console.warn("a picture could not be decoded", error);
      }
    }
    this.decoding = false;
  }

  show(message) {
    this.tracks = message;
    const seen = message.state.filter((state) => state !== LOST).length;
    this.caption.textContent = seen ? `${seen} seen` : "";
    this.draw();
  }

  enable(enabled) {
    this.enabled = enabled;
    this.figure.hidden = !enabled || !this.bitmap;
  }

  trackAt({ offsetX, offsetY }) {
    if (!this.tracks) return null;
    const { width, height, clientWidth, clientHeight } = this.canvas;
    const shown = Math.min(clientWidth / width, clientHeight / height); // bars beside it belong to no track
    const x = (0.5 + (offsetX - 0.5 * clientWidth) / (shown * width)) * this.tracks.width;
    const y = (0.5 + (offsetY - 0.5 * clientHeight) / (shown * height)) * this.tracks.height;
    const inside = this.boxes().filter(({ box: [x0, y0, x1, y1] }) => x >= x0 && x < x1 && y >= y0 && y < y1);
    return inside.at(-1)?.id ?? null;
  }

  // Large ones first.
  boxes() {
    const { id, label, state, box_px } = this.tracks;
    const found = [];
    for (let at = 0; at < id.length; at += 1) {
      if (state[at] === LOST) continue;
      const box = box_px.subarray(4 * at, 4 * at + 4);
      found.push({ id: id[at], label: label[at], box, area: (box[2] - box[0]) * (box[3] - box[1]) });
    }
    return found.sort((a, b) => b.area - a.area);
  }

  draw() {
    if (!this.bitmap) return;
    this.figure.hidden = !this.enabled;
    const { width, height } = this.bitmap;
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
    }
    const pen = this.canvas.getContext("2d");
    pen.drawImage(this.bitmap, 0, 0);
    if (this.tracks?.width) this.drawTracks(pen, width, height);
  }

  drawTracks(pen, width, height) {
    const sx = width / this.tracks.width;
    const sy = height / this.tracks.height;
    const size = Math.max(11, width / 36);
    pen.lineWidth = Math.max(1.5, width / 320);
    pen.font = `600 ${size}px system-ui, "DejaVu Sans", sans-serif`;
    pen.textBaseline = "middle";
    const boxes = this.boxes();
    for (const { id, box: [x0, y0, x1, y1] } of boxes) {
      pen.strokeStyle = colourOf(id);
      pen.beginPath();
      pen.roundRect(x0 * sx, y0 * sy, (x1 - x0) * sx, (y1 - y0) * sy, 4);
      pen.stroke();
    }
    for (const { id, label, box: [x0, y0] } of boxes.slice(0, MOST_NAMES)) {
      const wide = pen.measureText(label).width + size;
      const left = Math.min(Math.max(x0 * sx, 2), width - wide - 2);
      const top = Math.min(Math.max(y0 * sy + 3, 3), height - 1.6 * size);
      pen.fillStyle = colourOf(id);
      pen.beginPath();
      pen.roundRect(left + 2, top, wide, 1.45 * size, 5);
      pen.fill();
      pen.fillStyle = "#fff";
      pen.fillText(label, left + 2 + 0.5 * size, top + 0.75 * size);
    }
  }

  // The picture of a server that may be gone.
  forget() {
    this.bitmap?.close();
    this.bitmap = null;
    this.figure.hidden = true;
  }

  clear() {
    this.tracks = null;
    this.caption.textContent = "";
  }
}
