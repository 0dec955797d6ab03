# SPDX-License-Identifier: Apache-2.0
"""Colours as lightness and two differences, in six bits each.

The reversible YCoCg transform of Malvar & Sullivan (JVT-I014, 2003); then the last two bits of
lightness and the last three of the differences are dropped. Grey stays grey.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, UInt8


def quantised(rgb: UInt8[np.ndarray, "n 3"]) -> Int[np.ndarray, "n 3"]:
    """Lightness 0..63, orange and green differences -32..32."""
    red, green, blue = np.moveaxis(rgb.astype(np.int64), -1, 0)
    orange = red - blue
    middle = blue + (orange >> 1)
    difference = green - middle
    lightness = middle + (difference >> 1)
    return np.stack([lightness >> 2, (orange + 4) >> 3, (difference + 4) >> 3], axis=-1)


def restored(coded: Int[np.ndarray, "n 3"]) -> UInt8[np.ndarray, "n 3"]:
    """The colours that `quantised` values stand for."""
    lightness, orange, difference = np.moveaxis(coded, -1, 0)
    lightness, orange, difference = 4 * lightness + 2, 8 * orange, 8 * difference
    middle = lightness - (difference >> 1)
    blue = middle - (orange >> 1)
    rgb = np.stack([blue + orange, difference + middle, blue], axis=-1)
    return np.asarray(np.clip(rgb, 0, 255), np.uint8)
