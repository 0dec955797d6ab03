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
    size = size_around(rgb.shape, shape)
    whole = np.zeros((*size, 3), np.uint8)
    whole[centred(size, rgb.shape)] = rgb
    return whole


def size_around(part: tuple[int, ...], film: tuple[int, ...]) -> tuple[int, int]:
    """The size (h, w) of the whole picture, in pixels of the part of it that a keyframe shows, when
    the film's pictures have the shape `film`."""
    wider = _wider(film, part)
    return round(part[0] / min(1.0, wider)), round(part[1] * max(1.0, wider))


def centred(whole: tuple[int, ...], part: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns of the whole that its middle part takes."""
    return _centred(whole[0], part[0]), _centred(whole[1], part[1])


def _wider(shape: tuple[int, ...], other: tuple[int, ...]) -> float:
    """How many times as wide as `other` a picture is at the same height; 1 where that is but
    rounding, or where one has no pixels."""
    if 0 in (*shape[:2], *other[:2]):
        return 1.0
    share = (shape[1] * other[0]) / (shape[0] * other[1])
    return share if max(share, 1 / share) > 1 + SQUEEZED else 1.0


def _centred(whole: int, part: int) -> slice:
    first = (whole - part) // 2
    return slice(first, first + part)
