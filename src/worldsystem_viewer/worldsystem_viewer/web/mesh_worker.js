// SPDX-License-Identifier: Apache-2.0
// Decodes mesh messages off the page's own thread, one after the other.

import { decodeMeshCode } from "./mesh_code.js";
import { levelCode } from "./mesh_warm.js";

const WARM_RUNS = 24;

let last = warm();

onmessage = ({ data }) => {
  last = last.then(() => answer(data));
};

async function answer({ epoch, code, blocks, removed }) {
  try {
    const found = blocks ?? (code.length ? await decodeMeshCode(code) : []);
    postMessage({ epoch, blocks: found, removed }, buffersOf(found));
  } catch (error) {
    postMessage({ epoch, error: String(error), blocks: [], removed });
  }
}

// The page's own thread gets what was made, to run on it what comes after.
async function warm() {
  try {
    const code = await levelCode();
    for (let run = 1; run < WARM_RUNS; run += 1) await decodeMeshCode(code);
    const made = await decodeMeshCode(code);
    postMessage({ made }, buffersOf(made));
  } catch (error) {
    postMessage({ error: String(error), made: [] });
  }
}

function buffersOf(blocks) {
  const arrays = blocks.flatMap((block) => [block.vertices, block.colours, block.faces, block.places, block.rims]);
  // once each: arrays of a block may lie in one buffer
  return [...new Set(arrays.filter(Boolean).map((array) => array.buffer))];
}
