# SPDX-License-Identifier: Apache-2.0
"""Where each number of a label picture lies, in one pass over the picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt16


@dataclass(frozen=True)
class PixelBox:
    """Extent of one label: (x0, y0, x1, y1), x1 and y1 exclusive, and how many pixels it has."""

    box_px: tuple[int, int, int, int]
    area_px: int


def pixel_boxes(labels: UInt16[np.ndarray, "h w"], count: int) -> list[PixelBox | None]:
    """The boxes of labels 1 to `count`; None where a label has no pixel."""
    flat = labels.ravel()
    pixels = np.flatnonzero(flat)
    values = flat[pixels]
    pixels = pixels[np.argsort(values, kind="stable")]  # within a label they stay in row order
    ends = np.cumsum(np.bincount(values, minlength=count + 1)[1 : count + 1])
    found: list[PixelBox | None] = []
    for own in np.split(pixels, ends[:-1]) if count else []:
        found.append(_box_of(own, labels.shape[1]) if len(own) else None)
    return found


def _box_of(pixels: np.ndarray, width: int) -> PixelBox:
    columns = pixels % width
    top, bottom = int(pixels[0]) // width, int(pixels[-1]) // width
    box = (int(columns.min()), top, int(columns.max()) + 1, bottom + 1)
    return PixelBox(box, len(pixels))
