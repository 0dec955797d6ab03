// SPDX-License-Identifier: Apache-2.0
// A small code to run the decoder on before the first message comes: a browser compiles what has run
// for a while, and a page's first message would take several times as long as those after it.

const BLOCKS = 32;
const ROW = 9; // points along a block's edge
const LAYER = 4; // of cells that the surface crosses

// Blocks in a row, crossed by a level surface: see docs/mesh_code.md.
export async function levelCode() {
  const vertices = ROW * ROW * BLOCKS - ROW * (BLOCKS - 1);
  const parts = [placesAlongX(), new Uint8Array(BLOCKS >> 3), crossedCells(), cornerSigns(), new Uint8Array(4 * vertices)];
  const head = new DataView(new ArrayBuffer(16));
  head.setUint16(0, 0x4d57, true);
  head.setUint8(2, 1);
  head.setUint32(4, BLOCKS, true);
  head.setFloat64(8, 1.0, true);
  const deflated = new Blob(parts).stream().pipeThrough(new CompressionStream("deflate"));
  return new Uint8Array(await new Blob([head, await new Response(deflated).arrayBuffer()]).arrayBuffer());
}

// Steps of x, y, z and version, the first from 0: twice the step.
function placesAlongX() {
  const steps = new Uint8Array(4 * BLOCKS);
  for (let b = 1; b < BLOCKS; b += 1) steps[4 * b] = 2;
  return steps;
}

function crossedCells() {
  const cells = new Uint8Array(64 * BLOCKS);
  for (let b = 0; b < BLOCKS; b += 1) cells.fill(255, 64 * b + 8 * LAYER, 64 * b + 8 * (LAYER + 1));
  return cells;
}

// The corners below are inside, those above outside.
function cornerSigns() {
  const corners = 2 * ROW * ROW;
  const signs = new Uint8Array((corners * BLOCKS + 7) >> 3);
  for (let i = 0; i < corners * BLOCKS; i += 1) if (i % corners < ROW * ROW) signs[i >> 3] |= 1 << (i & 7);
  return signs;
}
