# SPDX-License-Identifier: Apache-2.0
"""Parting what geometry leaves in one piece: large parts of clearly different colour.

A box on a box seen at a grazing angle, or two boxes side by side with one front, have no crease
that a noisy pointmap shows. Print on a box or a stripe on a ball is too small a part to count.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float32, Int32, UInt8

from worldsystem_segment.geometric.pixel_kernels import of_one_colour, tints

EDGE = 24.0  # difference of tint across an edge
LIGHT_EDGE = 45.0  # of CIE lightness: more than two faces of one thing in one light differ
APART = 24.0  # least difference of the parts' median tint
LIGHT_APART = 40.0
MID_LIGHT, DARK = 60.0, 20.0
MIN_SHARE = 0.1  # of the piece, for a part of its own


def split_by_colour(
    labels: Int32[np.ndarray, "h w"], rgb: UInt8[np.ndarray, "h w 3"], min_area_px: int
) -> Int32[np.ndarray, "h w"]:
    """Give large parts of another colour numbers of their own, above those that `labels` holds."""
    if not labels.any():
        return labels
    lab = _tinted(rgb)
    inside = of_one_colour(labels, lab, np.float32(EDGE), np.float32(LIGHT_EDGE))
    _, parts = cv2.connectedComponents(inside, connectivity=4)
    sizes, whole = np.bincount(parts.ravel()), np.bincount(labels.ravel())
    owner = np.zeros(len(sizes), np.int64)
    owner[parts.ravel()] = labels.ravel()  # no part crosses a border of labels
    large = sizes >= np.maximum(min_area_px // 2, MIN_SHARE * whole[owner])
    large[0] = False
    result, following = labels, int(labels.max()) + 1
    for label in np.flatnonzero(np.bincount(owner[large], minlength=1) > 1):
        groups = _groups(lab, parts, np.flatnonzero(large & (owner == label)))
        if len(groups) > 1:
            result = _split(result, int(label), parts, groups, following)
            following += len(groups) - 1
    return result


def _tinted(rgb: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w 3"]:
    """Lightness and tint: the chroma (CIE ab) that a thing would have at middle lightness.

    Shade scales lightness and chroma alike, so that the faces of one thing have one tint.
    """
    lab = cv2.cvtColor(cv2.medianBlur(rgb, 5), cv2.COLOR_RGB2LAB)
    return np.asarray(tints(lab, np.float32(MID_LIGHT), np.float32(DARK)))


def _groups(
    lab: Float32[np.ndarray, "h w 3"], parts: Int32[np.ndarray, "h w"], numbers: np.ndarray
) -> list[list[int]]:
    """Parts of like colour together, greedily, the first ones first."""
    groups: list[tuple[Float32[np.ndarray, "3"], list[int]]] = []
    for number in numbers:
        colour = np.median(lab[parts == number], axis=0)
        for mean, members in groups:
            apart = float(np.hypot(*(colour - mean)[1:]))
            if apart < APART and abs(float(colour[0] - mean[0])) < LIGHT_APART:
                members.append(int(number))
                break
        else:
            groups.append((colour, [int(number)]))
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
