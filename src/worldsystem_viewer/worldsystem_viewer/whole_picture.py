# SPDX-License-Identifier: Apache-2.0
"""What keyframes show of their pictures, placed in the whole ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import UInt16

from worldsystem_core.frames import Camera
from worldsystem_core.middle_parts import centred, size_around
from worldsystem_core.objects import TrackFrame


def whole_labels(
    labels: UInt16[np.ndarray, "a b"], shape: tuple[int, ...]
) -> UInt16[np.ndarray, "c d"]:
    """A keyframe's labels as those of pictures of `shape` (h, w); beside its part is nobody."""
    size = size_around(labels.shape, shape)
    if size == labels.shape:
        return labels
    whole = np.zeros(size, np.uint16)
    whole[centred(size, labels.shape)] = labels
    return whole


def whole_tracks(frame: TrackFrame, shape: tuple[int, ...]) -> TrackFrame:
    """A keyframe's tracks as those of pictures of `shape` (h, w), in pixels of the keyframe."""
    labels = whole_labels(frame.labels, shape)
    if labels is frame.labels:
        return frame
    rows, columns = centred(labels.shape, frame.labels.shape)
    placed = []
    for track in frame.tracks:
        x0, y0, x1, y1 = track.box_px
        box = (x0 + columns.start, y0 + rows.start, x1 + columns.start, y1 + rows.start)
        placed.append(replace(track, box_px=box))
    return replace(frame, tracks=tuple(placed), labels=labels)


def whole_camera(camera: Camera, size: tuple[int, int]) -> Camera:
    """The camera of pictures of `size` (w, h), from that of a keyframe."""
    part = camera.height, camera.width
    height, width = whole = size_around(part, size[::-1])
    rows, columns = centred(whole, part)
    cx, cy = camera.cx + columns.start, camera.cy + rows.start
    return replace(camera, width=width, height=height, cx=cx, cy=cy).resized(*size)
