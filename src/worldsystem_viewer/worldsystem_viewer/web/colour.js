// SPDX-License-Identifier: Apache-2.0
// One colour for each track or object id, the same in the picture and in the map.

export function colourOf(id) {
  return `hsl(${(((id * 67) % 180) * 2)}, 72%, 46%)`;
}
