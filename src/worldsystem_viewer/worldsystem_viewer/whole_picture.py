# SPDX-License-Identifier: Apache-2.0
"""What keyframes show of their pictures, placed in the whole ones.

`slam3r` sees a square in the middle of a picture. A keyframe does not say so; its proportions do,
as in worldsystem_segment/learned/middle_parts.py.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import UInt16

from worldsystem_core.frames import Camera
from worldsystem_core.objects import TrackFrame

_SQUEEZED = 0.1  # proportions that differ less are those of the whole picture


def whole_labels(
    labels: UInt16[np.ndarray, "a b"], shape: tuple[int, ...]
) -> UInt16[np.ndarray, "c d"]:
    """A keyframe's labels as those of pictures of `shape` (h, w); beside its part is nobody."""
    size = _around(labels.shape, shape)
    if size == labels.shape:
        return labels
    top, left = _corner(labels.shape, size)
    whole = np.zeros(size, np.uint16)
    whole[top : top + labels.shape[0], left : left + labels.shape[1]] = labels
    return whole


def whole_tracks(frame: TrackFrame, shape: tuple[int, ...]) -> TrackFrame:
    """A keyframe's tracks as those of pictures of `shape` (h, w), in pixels of the keyframe."""
    labels = whole_labels(frame.labels, shape)
    if labels is frame.labels:
        return frame
    top, left = _corner(frame.labels.shape, labels.shape)
    placed = []
    for track in frame.tracks:
        x0, y0, x1, y1 = track.box_px
        placed.append(replace(track, box_px=(x0 + left, y0 + top, x1 + left, y1 + top)))
    return replace(frame, tracks=tuple(placed), labels=labels)


def whole_camera(camera: Camera, size: tuple[int, int]) -> Camera:
    """The camera of pictures of `size` (w, h), from that of a keyframe."""
    part = (camera.height, camera.width)
    height, width = whole = _around(part, size[::-1])
    top, left = _corner(part, whole)
    placed = replace(camera, width=width, height=height, cx=camera.cx + left, cy=camera.cy + top)
    return placed.resized(*size)


def _around(part: tuple[int, ...], whole: tuple[int, ...]) -> tuple[int, int]:
    """The size (h, w) of the whole picture in pixels of its middle part."""
    height, width = part[:2]
    if 0 in (height, width, *whole[:2]):
        return height, width
    wider = (whole[1] * height) / (whole[0] * width)
    if max(wider, 1 / wider) <= 1 + _SQUEEZED:
        return height, width
    return round(height / min(1.0, wider)), round(width * max(1.0, wider))


def _corner(part: tuple[int, ...], whole: tuple[int, ...]) -> tuple[int, int]:
    return (whole[0] - part[0]) // 2, (whole[1] - part[1]) // 2
