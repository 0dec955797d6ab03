// SPDX-License-Identifier: Apache-2.0
// Numbers what blocks share on their rims alike: see sharing.py.

// The places of blocks, and of those behind them along each axis, numbered in their order.
export class Homes {
  constructor(blocks) {
    const nameOf = names(blocks);
    const ids = new Map();
    this.numbers = new Int32Array(8 * blocks.length);
    for (let b = 0; b < blocks.length; b += 1) {
      const [x, y, z] = blocks[b].index;
      for (let c = 0; c < 8; c += 1) {
        const name = nameOf(x + (c & 1), y + ((c >> 1) & 1), z + (c >> 2));
        let id = ids.get(name);
        if (id === undefined) ids.set(name, (id = ids.size));
        this.numbers[8 * b + c] = id;
      }
    }
    this.count = ids.size;
  }

  // Number of the place at `corner` (bits x, y, z) of a block.
  of(block, corner) {
    return this.numbers[8 * block + corner];
  }
}

// A number for each place, from numbers for the coordinates that there are: quicker than text, and
// exact while those of the three axes have fewer than 2^53 combinations.
function names(blocks) {
  const ranks = [0, 1, 2].map((axis) => {
    const ranked = new Map();
    for (const { index } of blocks) {
      for (let k = index[axis]; k <= index[axis] + 1; k += 1) if (!ranked.has(k)) ranked.set(k, ranked.size);
    }
    return ranked;
  });
  return (x, y, z) => (ranks[0].get(x) * ranks[1].size + ranks[1].get(y)) * ranks[2].size + ranks[2].get(z);
}
