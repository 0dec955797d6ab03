// SPDX-License-Identifier: Apache-2.0
// Decoder of the block code; docs/mesh_code.md is its specification, worldsystem_core/mesh_code its twin.

import { decodeClusters } from "./mesh_clusters.js";
import { decodeLattice } from "./mesh_lattice.js";

const HEAD_BYTES = 16;

// Blocks of a code: { index, version, level, vertices, colours, faces, places, rims }. `places` are
// three integers a vertex: at level 0 the low point of its edge on the world's lattice, else its
// cluster. `rims` are 1 for vertices that another block could have, too.
export async function decodeMeshCode(bytes) {
  const head = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.byteLength < HEAD_BYTES || head.getUint16(0, true) !== 0x4d57 || head.getUint8(2) !== 1) {
    throw new Error("not a mesh code of version 1");
  }
  const [level, count, voxel] = [head.getUint8(3), head.getUint32(4, true), head.getFloat64(8, true)];
  const reader = new Reader(await inflated(bytes.subarray(HEAD_BYTES)));
  const blocks = reader.blocks(count);
  if (level === 0) decodeLattice(reader, blocks, voxel);
  else decodeClusters(reader, blocks, level, voxel);
  reader.end();
  return blocks.map((block) => ({ level, ...block }));
}

// Written and read directly: a Blob and a Response around it cost as much again.
async function inflated(bytes) {
  const { readable, writable } = new DecompressionStream("deflate");
  const writer = writable.getWriter();
  const ignored = () => {}; // what is wrong with the bytes is told by the reader, too
  writer.write(bytes).catch(ignored);
  writer.close().catch(ignored);
  const parts = [];
  const reader = readable.getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) parts.push(part.value);
  return parts.length === 1 ? parts[0] : joined(parts);
}

function joined(parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }

  take(count) {
    if (this.at + count > this.bytes.length) throw new Error("mesh code ends too early");
    this.at += count;
    return this.bytes.subarray(this.at - count, this.at);
  }

  number() {
    let value = 0;
    for (let scale = 1; scale < 2 ** 35; scale *= 128) {
      if (this.at >= this.bytes.length) throw new Error("mesh code ends too early");
      const byte = this.bytes[this.at++];
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
    throw new Error("mesh code has a number of more than five bytes");
  }

  step() {
    const coded = this.number();
    return coded % 2 ? -(coded + 1) / 2 : coded / 2;
  }

  blocks(count) {
    const last = [0, 0, 0, 0];
    return Array.from({ length: count }, () => {
      for (let i = 0; i < 4; i += 1) last[i] += this.step();
      const [index, version] = [last.slice(0, 3), last[3]];
      const isFar = index.some((k) => Math.abs(k) >= 2 ** 28);
      if (isFar || version < 0 || version >= 2 ** 31) throw new Error("mesh code has a block far outside the world");
      return { index, version };
    });
  }

  colours(count) {
    const [lightness, oranges, greens] = [this.take(count), this.take(count), this.take(count)];
    const rgb = new Uint8ClampedArray(3 * count);
    let [light, orange, green] = [0, 0, 0];
    for (let i = 0; i < count; i += 1) {
      light = (light + lightness[i]) & 255;
      orange = (orange + oranges[i]) & 255;
      green = (green + greens[i]) & 255;
      const difference = 8 * ((green << 24) >> 24);
      const middle = 4 * light + 2 - (difference >> 1);
      const blue = middle - ((8 * ((orange << 24) >> 24)) >> 1);
      rgb[3 * i] = blue + 8 * ((orange << 24) >> 24);
      rgb[3 * i + 1] = difference + middle;
      rgb[3 * i + 2] = blue;
    }
    return rgb;
  }

  end() {
    if (this.at !== this.bytes.length) throw new Error("mesh code holds more than it says");
  }
}
