// SPDX-License-Identifier: Apache-2.0
// The worker that puts splats in order, farthest first: a counting sort over 16 bits of depth.

const PAGE = 256;
const STEPS = 65_536;
const chunks = new Map();
const halves = halfFloats();

onmessage = ({ data }) => {
  if (data.put !== undefined) put(data);
  else if (data.move !== undefined) place(chunks.get(data.move), data.matrix);
  else if (data.remove !== undefined) chunks.delete(data.remove);
  else sort(data.along);
};

function put({ put: id, pages, words, matrix }) {
  const count = words.length / 4;
  const local = new Float32Array(3 * count);
  for (let i = 0; i < count; i += 1) {
    local[3 * i] = halves[words[4 * i + 1] & 0xffff];
    local[3 * i + 1] = halves[words[4 * i + 1] >>> 16];
    local[3 * i + 2] = halves[words[4 * i + 2] & 0xffff];
  }
  const chunk = { pages, count, local, world: new Float32Array(3 * count) };
  chunks.set(id, chunk);
  place(chunk, matrix);
}

function place(chunk, m) {
  if (!chunk) return;
  const { local, world } = chunk;
  for (let i = 0; i < local.length; i += 3) {
    const [x, y, z] = [local[i], local[i + 1], local[i + 2]];
    world[i] = m[0] * x + m[1] * y + m[2] * z + m[3];
    world[i + 1] = m[4] * x + m[5] * y + m[6] * z + m[7];
    world[i + 2] = m[8] * x + m[9] * y + m[10] * z + m[11];
  }
}

function sort([ax, ay, az]) {
  let total = 0;
  for (const { count } of chunks.values()) total += count;
  const nearness = new Float32Array(total);
  const numbers = new Uint32Array(total);
  let at = 0;
  let low = Infinity;
  let high = -Infinity;
  for (const { pages, count, world } of chunks.values()) {
    for (let i = 0; i < count; i += 1, at += 1) {
      const near = ax * world[3 * i] + ay * world[3 * i + 1] + az * world[3 * i + 2];
      nearness[at] = near;
      numbers[at] = pages[i >> 8] * PAGE + (i & 255);
      if (near < low) low = near;
      if (near > high) high = near;
    }
  }
  const order = counted(nearness, numbers, low, (STEPS - 1) / Math.max(high - low, 1e-12));
  postMessage({ order }, [order.buffer]);
}

function counted(nearness, numbers, low, scale) {
  const starts = new Uint32Array(STEPS + 1);
  const steps = new Uint16Array(nearness.length);
  for (let i = 0; i < nearness.length; i += 1) {
    steps[i] = (nearness[i] - low) * scale;
    starts[steps[i] + 1] += 1;
  }
  for (let s = 1; s <= STEPS; s += 1) starts[s] += starts[s - 1];
  const order = new Uint32Array(nearness.length);
  for (let i = 0; i < nearness.length; i += 1) order[starts[steps[i]]++] = numbers[i];
  return order;
}

// Every half float there is, by its bits.
function halfFloats() {
  const table = new Float32Array(65_536);
  for (let bits = 0; bits < 65_536; bits += 1) {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    if (exponent === 0) table[bits] = sign * fraction * 2 ** -24;
    else table[bits] = exponent === 31 ? NaN : sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }
  return table;
}
