# SPDX-License-Identifier: Apache-2.0
"""Drawing tracks over a picture: tinted masks with outlines, boxes, labels with ids."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np
from jaxtyping import UInt8

from worldsystem_core.objects import ShownTracks, Track, TrackState

TINT = 0.45
_HUES, _STEP = 180, 67  # as on the page (web/colour.js): neighbours are far apart


def id_colour(track_id: int) -> tuple[int, int, int]:
    """The RGB colour of an id, the same wherever it is drawn."""
    red, green, blue = colorsys.hsv_to_rgb(track_id * _STEP % _HUES / _HUES, 0.75, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_tracks(shown: ShownTracks) -> UInt8[np.ndarray, "h w 3"]:
    """A copy of the picture with its tracks; what is not confirmed has a thin grey box."""
    picture = shown.rgb.copy()
    labels = shown.tracks.labels
    ids = np.unique(labels)
    place = np.searchsorted(ids, labels)
    colours = np.array([id_colour(int(i)) for i in ids], np.float32).reshape(-1, 3)
    inside = labels > 0
    tinted = (1.0 - TINT) * picture[inside] + TINT * colours[place[inside]]
    picture[inside] = tinted.astype(np.uint8)
    edge = cv2.morphologyEx(labels, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    outline = edge & inside
    picture[outline] = colours[place[outline]].astype(np.uint8)
    for track in (t for t in shown.tracks.tracks if t.area_px):
        _draw_box(picture, track)
    return picture


def _draw_box(picture: UInt8[np.ndarray, "h w 3"], track: Track) -> None:
    x0, y0, x1, y1 = track.box_px
    sure = track.state is TrackState.CONFIRMED
    colour = id_colour(track.id) if sure else (150, 150, 150)
    cv2.rectangle(picture, (x0, y0), (x1 - 1, y1 - 1), colour, 2 if sure else 1)
    text = f"{track.id} {track.label}"
    scale = max(0.4, picture.shape[1] / 1600)
    (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    left = min(max(0, x0), max(0, picture.shape[1] - width - 4))
    top = max(height + base + 2, y0)
    cv2.rectangle(picture, (left, top - height - base - 2), (left + width + 4, top), colour, -1)
    spot = (left + 2, top - base)
    cv2.putText(picture, text, spot, cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), 1, cv2.LINE_AA)
