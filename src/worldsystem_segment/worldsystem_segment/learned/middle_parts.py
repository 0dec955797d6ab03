# SPDX-License-Identifier: Apache-2.0
"""Keyframes that show the middle of their picture: `slam3r` sees a square of it.

A keyframe does not say so; its proportions do, since no back-end cuts off one side alone.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, UInt8

SQUEEZED = 0.1
"""Proportions that differ less are those of the whole picture: `da3` rounds its sides to 14 px,
which of 140 px makes 7 %."""


def middle_of(mask: Bool[np.ndarray, "a b"], shape: tuple[int, ...]) -> Bool[np.ndarray, "c d"]:
    """What a keyframe of `shape` (h, w) shows of a picture's mask: the largest part around the
    centre with the keyframe's proportions, or all of it where they are those of the picture."""
    height, width = mask.shape
    wider = _wider(mask.shape, shape)
    rows = _centred(height, round(height * min(1.0, wider)))
    return mask[rows, _centred(width, round(width / max(1.0, wider)))]


def amid_black(
    rgb: UInt8[np.ndarray, "a b 3"], shape: tuple[int, ...]
) -> UInt8[np.ndarray, "c d 3"]:
    """A keyframe's picture where it lies in one of the film's proportions, `shape` (h, w), so that
    what is followed is found where it was; `middle_of` gives it back."""
    height, width = rgb.shape[:2]
    wider = _wider(shape, rgb.shape)
    size = round(height / min(1.0, wider)), round(width * max(1.0, wider))
    whole = np.zeros((*size, 3), np.uint8)
    whole[_centred(size[0], height), _centred(size[1], width)] = rgb
    return whole


def _wider(shape: tuple[int, ...], other: tuple[int, ...]) -> float:
    """How many times as wide as `other` a picture is at the same height; 1 where that is but
    rounding."""
    share = (shape[1] * other[0]) / (shape[0] * other[1])
    return share if max(share, 1 / share) > 1 + SQUEEZED else 1.0


def _centred(whole: int, part: int) -> slice:
    first = (whole - part) // 2
    return slice(first, first + part)
