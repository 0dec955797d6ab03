// SPDX-License-Identifier: Apache-2.0
// Blocks joined to what the graphics draw: places, linear colours, normals, triangles.

import * as THREE from "./vendor/three.module.min.js";

// Null where there is no triangle. `places` says where a block's vertices are (mesh_stitch.js).
export function joined(blocks, places) {
  const total = { v: 0, f: 0 };
  for (const block of blocks) {
    total.v += block.vertices.length;
    total.f += block.faces.length;
  }
  if (total.f === 0) return null;
  const position = new Float32Array(total.v);
  const colour = new Uint8Array(total.v);
  const index = new Uint32Array(total.f);
  let v = 0;
  let f = 0;
  for (const block of blocks) {
    position.set(places.vertices(block), v);
    colour.set(block.colours, v);
    const { faces } = block;
    const first = v / 3;
    for (let i = 0; i < faces.length; i += 1) index[f + i] = faces[i] + first;
    v += block.vertices.length;
    f += block.faces.length;
  }
  const geometry = new THREE.BufferGeometry();
  geometry.setAttribute("position", new THREE.BufferAttribute(position, 3));
  geometry.setAttribute("color", uploaded(new THREE.BufferAttribute(opaque(colour), 4, true)));
  geometry.setAttribute("normal", uploaded(new THREE.BufferAttribute(normals(position, index), 4, true)));
  geometry.setIndex(new THREE.BufferAttribute(index, 1));
  geometry.boundingBox = boxAround(position);
  geometry.boundingSphere = geometry.boundingBox.getBoundingSphere(new THREE.Sphere());
  return geometry;
}

// What three.js does vertex by vertex, through a vector each.
function boxAround(position) {
  let [x0, y0, z0, x1, y1, z1] = [Infinity, Infinity, Infinity, -Infinity, -Infinity, -Infinity];
  for (let i = 0; i < position.length; i += 3) {
    const x = position[i];
    const y = position[i + 1];
    const z = position[i + 2];
    if (x < x0) x0 = x;
    if (y < y0) y0 = y;
    if (z < z0) z0 = z;
    if (x > x1) x1 = x;
    if (y > y1) y1 = y;
    if (z > z1) z1 = z;
  }
  return new THREE.Box3(new THREE.Vector3(x0, y0, z0), new THREE.Vector3(x1, y1, z1));
}

// Once the graphics have it, the page need not: places and faces stay, for picking.
function uploaded(attribute) {
  attribute.onUpload(() => { attribute.array = new attribute.array.constructor(0); });
  return attribute;
}

// Normals as bytes, four each; vertices at one place, on the rims of two blocks, have one normal.
//
// Rows of three bytes or three shorts do not begin at multiples of four, and graphics then convert
// whole buffers before they draw.
function normals(position, index) {
  const count = position.length / 3;
  const first = sharedPlaces(position, count);
  const sum = new Float32Array(3 * count);
  for (let f = 0; f < index.length; f += 3) {
    const a = 3 * first[index[f]];
    const b = 3 * first[index[f + 1]];
    const c = 3 * first[index[f + 2]];
    const ux = position[b] - position[a];
    const uy = position[b + 1] - position[a + 1];
    const uz = position[b + 2] - position[a + 2];
    const vx = position[c] - position[a];
    const vy = position[c + 1] - position[a + 1];
    const vz = position[c + 2] - position[a + 2];
    const nx = uy * vz - uz * vy;
    const ny = uz * vx - ux * vz;
    const nz = ux * vy - uy * vx;
    sum[a] += nx;
    sum[a + 1] += ny;
    sum[a + 2] += nz;
    sum[b] += nx;
    sum[b + 1] += ny;
    sum[b + 2] += nz;
    sum[c] += nx;
    sum[c + 1] += ny;
    sum[c + 2] += nz;
  }
  return asBytes(sum, first);
}

// Of unit length, computed once for each place.
function asBytes(sum, first) {
  const out = new Int8Array(4 * first.length);
  const whole = new Int32Array(out.buffer);
  for (let i = 0, at = 0; i < first.length; i += 1, at += 3) {
    if (first[i] < i) {
      whole[i] = whole[first[i]];
      continue;
    }
    const x = sum[at];
    const y = sum[at + 1];
    const z = sum[at + 2];
    const scale = 127 / (Math.sqrt(x * x + y * y + z * z) || 1);
    out[4 * i] = Math.round(x * scale);
    out[4 * i + 1] = Math.round(y * scale);
    out[4 * i + 2] = Math.round(z * scale);
  }
  return out;
}

// For each vertex the first one that lies at the very same place.
function sharedPlaces(position, count) {
  const bits = new Uint32Array(position.buffer, position.byteOffset, position.length);
  const size = 2 ** Math.ceil(Math.log2(2 * count + 1));
  const table = new Int32Array(size).fill(-1);
  const first = new Uint32Array(count);
  for (let i = 0; i < count; i += 1) {
    const x = bits[3 * i];
    const y = bits[3 * i + 1];
    const z = bits[3 * i + 2];
    let slot = (Math.imul(x, 0x9e3779b1) ^ Math.imul(y, 0x85ebca6b) ^ Math.imul(z, 0xc2b2ae35)) >>> 0;
    slot = (slot ^ (slot >>> 15)) & (size - 1);
    for (;;) {
      const held = table[slot];
      if (held < 0) {
        table[slot] = first[i] = i;
        break;
      }
      if (bits[3 * held] === x && bits[3 * held + 1] === y && bits[3 * held + 2] === z) {
        first[i] = held;
        break;
      }
      slot = (slot + 1) & (size - 1);
    }
  }
  return first;
}

// Colours come as sRGB; lighting is computed on linear values.
const LINEAR = Uint16Array.from({ length: 256 }, (_, value) => {
  const c = value / 255;
  return Math.round(65535 * (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
});

// Four numbers a vertex, the fourth of which hides nothing.
function opaque(colour) {
  const out = new Uint16Array((4 * colour.length) / 3);
  for (let i = 0, at = 0; i < colour.length; i += 3, at += 4) {
    out[at] = LINEAR[colour[i]];
    out[at + 1] = LINEAR[colour[i + 1]];
    out[at + 2] = LINEAR[colour[i + 2]];
    out[at + 3] = 65535;
  }
  return out;
}

export function linear(colour) {
  const out = new Uint16Array(colour.length);
  for (let i = 0; i < colour.length; i += 1) out[i] = LINEAR[colour[i]];
  return out;
}
