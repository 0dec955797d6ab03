# SPDX-License-Identifier: Apache-2.0
"""Parting what geometry leaves in one piece: large parts of clearly different colour.

A box on a box seen at a grazing angle, or two boxes side by side with one front, have no crease
that a noisy pointmap shows. Print on a box or a stripe on a ball is too small a part to count.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float32, Int32, Int64, UInt8

from worldsystem_segment.geometric.instance_kernels import areas, by_label, extent_of
from worldsystem_segment.geometric.pixel_kernels import of_one_colour, tints

EDGE = 24.0  # difference of tint across an edge
LIGHT_EDGE = 45.0  # of CIE lightness: more than two faces of one thing in one light differ
APART = 24.0  # least difference of the parts' median tint
LIGHT_APART = 40.0
MID_LIGHT, DARK = 60.0, 20.0
MIN_SHARE = 0.1  # of the piece, for a part of its own
BLUR_PX = 2  # how far about a pixel its colour is taken from
COLOUR_PX = 500  # of a part, for its median colour


def split_by_colour(
    labels: Int32[np.ndarray, "h w"], rgb: UInt8[np.ndarray, "h w 3"], min_area_px: int
) -> Int32[np.ndarray, "h w"]:
    """Give large parts of another colour numbers of their own, above those that `labels` holds."""
    count = int(labels.max())
    if not count:
        return labels
    part = around(labels, BLUR_PX)
    parted = _parted(np.ascontiguousarray(labels[part]), rgb[part], min_area_px, count)
    if parted is None:
        return labels
    result = labels.copy()
    result[part] = parted
    return result


def around(labels: Int32[np.ndarray, "h w"], margin_px: int) -> tuple[slice, slice]:
    """The rows and columns that hold all labelled pixels, and a margin of so many pixels."""
    top, bottom, left, right = extent_of(labels)
    rows = slice(max(0, top - margin_px), bottom + margin_px)
    return rows, slice(max(0, left - margin_px), right + margin_px)


def _parted(
    labels: Int32[np.ndarray, "h w"],
    rgb: UInt8[np.ndarray, "h w 3"],
    min_area_px: int,
    count: int,
) -> Int32[np.ndarray, "h w"] | None:
    # None: nothing is to be parted
    lab = _tinted(rgb)
    inside = of_one_colour(labels, lab, np.float32(EDGE), np.float32(LIGHT_EDGE))
    numbers, parts = cv2.connectedComponents(inside, connectivity=4)
    ordered, starts = by_label(parts, numbers - 1)
    if numbers < 2:
        return None
    sizes, whole = np.diff(starts), areas(labels, count + 1)
    owner = labels.ravel()[ordered[starts[:-1]]]  # no part crosses a border of labels
    large = sizes >= np.maximum(min_area_px // 2, MIN_SHARE * whole[owner])
    result, following = labels, count + 1
    for label in np.flatnonzero(np.bincount(owner[large], minlength=1) > 1):
        found = np.flatnonzero(large & (owner == label))
        colours = [_colour(lab, ordered[starts[k] : starts[k + 1]]) for k in found]
        groups = _groups(colours, (found + 1).tolist())
        if len(groups) > 1:
            result = _split(result, int(label), parts, groups, following)
            following += len(groups) - 1
    return None if result is labels else result


def _tinted(rgb: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w 3"]:
    """Lightness and tint: the chroma (CIE ab) that a thing would have at middle lightness.

    Shade scales lightness and chroma alike, so that the faces of one thing have one tint.
    """
    lab = cv2.cvtColor(cv2.medianBlur(rgb, 2 * BLUR_PX + 1), cv2.COLOR_RGB2LAB)
    return np.asarray(tints(lab, np.float32(MID_LIGHT), np.float32(DARK)))


def _colour(
    lab: Float32[np.ndarray, "h w 3"], pixels: Int64[np.ndarray, "n"]
) -> Float32[np.ndarray, "3"]:
    some = pixels[:: max(1, len(pixels) // COLOUR_PX)]
    return np.asarray(np.median(lab.reshape(-1, 3)[some], axis=0))


def _groups(colours: list[Float32[np.ndarray, "3"]], numbers: list[int]) -> list[list[int]]:
    """Parts of like colour together, greedily, the first ones first."""
    groups: list[tuple[Float32[np.ndarray, "3"], list[int]]] = []
    for colour, number in zip(colours, numbers, strict=True):
        for mean, members in groups:
            apart = float(np.hypot(*(colour - mean)[1:]))
            if apart < APART and abs(float(colour[0] - mean[0])) < LIGHT_APART:
                members.append(number)
                break
        else:
            groups.append((colour, [number]))
    return [members for _, members in groups]


def _split(
    labels: Int32[np.ndarray, "h w"],
    label: int,
    parts: Int32[np.ndarray, "h w"],
    groups: list[list[int]],
    following: int,
) -> Int32[np.ndarray, "h w"]:
    """Every pixel of `label` goes to the group of the nearest part; the first keeps the number."""
    rows, columns = np.nonzero(labels == label)
    area = (slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
    own = labels[area] == label
    distances = [
        cv2.distanceTransform((~(np.isin(parts[area], g) & own)).astype(np.uint8), cv2.DIST_L2, 3)
        for g in groups
    ]
    nearest = np.argmin(distances, axis=0)
    numbers = np.array([label, *range(following, following + len(groups) - 1)], np.int32)
    result = labels.copy()
    result[area] = np.where(own, numbers[nearest], labels[area])
    return result
