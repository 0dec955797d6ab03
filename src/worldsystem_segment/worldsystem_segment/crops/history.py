# SPDX-License-Identifier: Apache-2.0
"""The last crops of each object, bounded in number and in bytes, and the sharpest of them."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import UInt8

from worldsystem_core.objects import Track, TrackFrame, TrackState

MARGIN = 0.2  # of the box's edges, at each side
MIN_EDGE_PX = 16
SHARP_EDGE_PX = 64  # crops are compared at one size: detail costs, not pixels


@dataclass(frozen=True, eq=False)
class Crop:
    """A cut-out picture of one object; `box_px` (x0, y0, x1, y1) includes the margin."""

    rgb: UInt8[np.ndarray, "h w 3"]
    stamp_ns: int
    box_px: tuple[int, int, int, int]
    sharpness: float
    whole: bool  # the object does not touch the picture's border


class CropHistory:
    """At most `per_object` crops of each of at most `max_objects` objects.

    The object that was seen longest ago goes first. Not thread-safe.
    """

    def __init__(self, per_object: int = 30, max_objects: int = 200, max_mb: float = 200.0) -> None:
        self._per_object = per_object
        self._max_objects = max_objects
        self._max_bytes = int(max_mb * 1e6)
        self._crops: OrderedDict[int, deque[Crop]] = OrderedDict()
        self.bytes = 0
        self.forgotten = 0

    def add(self, rgb: UInt8[np.ndarray, "h w 3"], frame: TrackFrame) -> list[int]:
        """Keep a crop of each confirmed track in view; ids of those whose best is a new one.

        Those that found no room beside the others are not among them.
        """
        better = []
        for track in frame.tracks:
            if track.state is not TrackState.CONFIRMED or not track.area_px:
                continue
            crop = cut(rgb, track, frame.stamp_ns)
            if crop is not None and self._keep(track.id, crop):
                better.append(track.id)
        self._bound()
        return [object_id for object_id in better if object_id in self._crops]

    def crops(self, object_id: int) -> Sequence[Crop]:
        """The object's crops, oldest first; none for an object without."""
        return tuple(self._crops.get(object_id, ()))

    def best(self, object_id: int) -> Crop | None:
        """The sharpest whole crop, or the sharpest one where none is whole."""
        crops = self._crops.get(object_id)
        return max(crops, key=_rank) if crops else None

    def rename(self, gone_id: int, kept_id: int) -> None:
        """Two objects turned out to be one: their crops go together."""
        for crop in self._crops.pop(gone_id, ()):
            self.bytes -= crop.rgb.nbytes
            self._keep(kept_id, crop)

    def forget(self, object_id: int) -> None:
        """The id is another object's from now on."""
        self.bytes -= sum(crop.rgb.nbytes for crop in self._crops.pop(object_id, ()))

    def __len__(self) -> int:
        return len(self._crops)

    def _keep(self, object_id: int, crop: Crop) -> bool:
        crops = self._crops.setdefault(object_id, deque())
        self._crops.move_to_end(object_id)
        is_best = not crops or _rank(crop) > max(map(_rank, crops))
        crops.append(crop)
        self.bytes += crop.rgb.nbytes
        while len(crops) > self._per_object:
            best = max(crops, key=_rank)
            oldest = next(c for c in crops if c is not best or len(crops) == 1)
            crops.remove(oldest)  # the best one stays, however old
            self.bytes -= oldest.rgb.nbytes
        return is_best

    def _bound(self) -> None:
        while len(self._crops) > self._max_objects or self.bytes > self._max_bytes:
            _, crops = self._crops.popitem(last=False)
            self.bytes -= sum(crop.rgb.nbytes for crop in crops)
            self.forgotten += 1


def cut(rgb: UInt8[np.ndarray, "h w 3"], track: Track, stamp_ns: int) -> Crop | None:
    """The track's box with its margin, as far as the picture goes; None for a tiny one."""
    height, width = rgb.shape[:2]
    x0, y0, x1, y1 = track.box_px
    if min(x1 - x0, y1 - y0) < MIN_EDGE_PX:
        return None
    pad_x, pad_y = round(MARGIN * (x1 - x0)), round(MARGIN * (y1 - y0))
    box = (max(0, x0 - pad_x), max(0, y0 - pad_y), min(width, x1 + pad_x), min(height, y1 + pad_y))
    picture = rgb[box[1] : box[3], box[0] : box[2]].copy()
    whole = x0 > 0 and y0 > 0 and x1 < width and y1 < height
    return Crop(picture, stamp_ns, box, sharpness(picture), whole)


def sharpness(rgb: UInt8[np.ndarray, "h w 3"]) -> float:
    """Variance of the Laplacian of the grey picture at a common size (Pech-Pacheco et al. 2000)."""
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    scale = SHARP_EDGE_PX / max(grey.shape)
    if scale < 1.0:
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return float(cv2.Laplacian(grey, cv2.CV_32F).var())


def _rank(crop: Crop) -> tuple[bool, float]:
    return crop.whole, crop.sharpness
