// SPDX-License-Identifier: Apache-2.0
// The live picture with the boxes of what is seen in it.

import { colourOf } from "./colour.js";

const LOST = 3;

export class VideoInset {
  constructor(figure, canvas, caption) {
    this.figure = figure;
    this.canvas = canvas;
    this.caption = caption;
    this.enabled = true;
    this.tracks = null;
    this.pictures = 0;
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
        this.bitmap?.close();
        this.bitmap = bitmap;
        this.full = full;
        this.pictures += 1;
        this.draw();
      } catch (error) {
        console.warn("a picture could not be decoded", error);
      }
    }
    this.decoding = false;
  }

  show(message) {
    this.tracks = message;
    this.caption.textContent = message.id.length ? `${message.id.length} tracked` : "";
    this.draw();
  }

  enable(enabled) {
    this.enabled = enabled;
    this.figure.hidden = !enabled || !this.bitmap;
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
    if (this.tracks) this.drawTracks(pen, width, height);
  }

  drawTracks(pen, width, height) {
    const { label, id, state, box_px } = this.tracks;
    const sx = width / this.tracks.width;
    const sy = height / this.tracks.height;
    pen.lineWidth = Math.max(1.5, width / 260);
    pen.font = `600 ${Math.max(11, width / 38)}px system-ui, sans-serif`;
    pen.textBaseline = "top";
    for (let at = 0; at < id.length; at += 1) {
      if (state[at] === LOST) continue;
      const [x0, y0, x1, y1] = box_px.subarray(4 * at, 4 * at + 4);
      const text = `${label[at]} ${id[at]}`;
      pen.strokeStyle = pen.fillStyle = colourOf(id[at]);
      pen.strokeRect(x0 * sx, y0 * sy, (x1 - x0) * sx, (y1 - y0) * sy);
      const tall = 1.3 * parseInt(pen.font.split(" ")[1], 10);
      pen.fillRect(x0 * sx, y0 * sy, pen.measureText(text).width + 8, tall);
      pen.fillStyle = "#fff";
      pen.fillText(text, x0 * sx + 4, y0 * sy + 2);
    }
  }

  clear() {
    this.bitmap?.close();
    this.bitmap = null;
    this.tracks = null;
    this.caption.textContent = "";
    this.figure.hidden = true;
  }
}
