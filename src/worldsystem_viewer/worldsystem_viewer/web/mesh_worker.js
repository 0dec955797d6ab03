// SPDX-License-Identifier: Apache-2.0
// Decodes mesh messages off the page's own thread, one after the other.

import { decodeMeshCode } from "./mesh_code.js";

let last = Promise.resolve();

onmessage = ({ data }) => {
  last = last.then(() => answer(data));
};

async function answer({ epoch, code, blocks, removed }) {
  try {
    const found = blocks ?? (code.length ? await decodeMeshCode(code) : []);
    const buffers = found.flatMap((block) => [block.vertices, block.colours, block.faces, block.places, block.rims]);
    // once each: arrays of a block may lie in one buffer
    postMessage({ epoch, blocks: found, removed }, [...new Set(buffers.filter(Boolean).map((array) => array.buffer))]);
  } catch (error) {
    postMessage({ epoch, error: String(error), blocks: [], removed });
  }
}
