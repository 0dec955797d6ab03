# SPDX-License-Identifier: Apache-2.0
"""Gaussians from a pointmap: one disc for each known pixel, lying in the surface.

A disc is as wide as the way to its neighbours, so that the surface closes, and thin across it.
Confidence decides whether a pixel gets one; as opacity it would make a wall of fog (measured:
-5 dB). Depth edges are not bridged: a neighbour's difference is the smaller of the two sides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from worldsystem_core.splats.gaussians import Gaussians, quaternions_wxyz

WIDTH = 0.55
"""Standard deviation in the surface, in distances to the neighbour."""
FLATNESS = 0.1
OPACITY = 0.99
_LEAST_FOOTPRINTS, _MOST_FOOTPRINTS = 0.5, 4.0
_GRAZING = 0.05
_NOISE_WORTH_SMOOTHING = 5e-4
_SMOOTHING_TAPS = 3


@dataclass(frozen=True, eq=False)
class SurfaceFrame:
    """Where a pixel's surface lies: its normal, and the way to the next pixel right and down.

    All in the pointmap's frame; `footprint` is the width of a pixel at the point's distance.
    """

    normal: Float32[np.ndarray, "n 3"]
    right: Float32[np.ndarray, "n 3"]
    down: Float32[np.ndarray, "n 3"]
    footprint: Float32[np.ndarray, "n"]


def discs_from_pointmap(
    pointmap: Float32[np.ndarray, "h w 3"],
    rgb: UInt8[np.ndarray, "h w 3"],
    confidence: Float32[np.ndarray, "h w"] | None = None,
    *,
    least_confidence: float = 0.1,
    chosen: Bool[np.ndarray, "h w"] | None = None,
) -> Gaussians:
    """One disc for each finite pixel of at least `least_confidence`, in the pointmap's frame.

    Row-major, of the `chosen` pixels only. Points are smoothed along the surface first where they
    are noisy. Opacity is 0.7 at the least confidence and `OPACITY` at 1.
    """
    known = np.isfinite(pointmap).all(axis=-1)
    if confidence is not None:
        known &= confidence >= least_confidence
    smooth = smoothed(pointmap, known)
    surface_of = known if chosen is None else known & chosen
    if not surface_of.any():
        return Gaussians.empty()
    frame = surface_frame(smooth, known, surface_of)
    scales, axes = _shape(frame)
    means = smooth[surface_of]
    opacities = np.full(len(means), OPACITY, np.float32)
    if confidence is not None:
        span = max(1.0 - least_confidence, 1e-6)
        share = np.clip((confidence[surface_of] - least_confidence) / span, 0, 1)
        opacities = (0.7 + (OPACITY - 0.7) * share).astype(np.float32)
    colours = rgb[surface_of].astype(np.float32) / np.float32(255)
    return Gaussians(means, scales, quaternions_wxyz(axes), colours, opacities)


def pixel_footprints(
    pointmap: Float32[np.ndarray, "h w 3"], known: Bool[np.ndarray, "h w"]
) -> Float32[np.ndarray, "h w"]:
    """How wide a pixel is at each point's distance; 0 where unknown.

    The pinhole's constant, width over distance, is the median over the picture of what faces the
    camera; half of all neighbours at least do not lie on an edge.
    """
    distance = np.where(known, np.linalg.norm(np.nan_to_num(pointmap), axis=-1), 0.0)
    step = np.linalg.norm(np.diff(pointmap, axis=1), axis=-1)
    both = known[:, 1:] & known[:, :-1]
    ratios = step[both] / np.maximum(distance[:, 1:][both], 1e-9)
    ratio = float(np.median(ratios)) if ratios.size else 0.0
    return np.asarray(ratio * distance, dtype=np.float32)


def surface_frame(
    pointmap: Float32[np.ndarray, "h w 3"],
    known: Bool[np.ndarray, "h w"],
    chosen: Bool[np.ndarray, "h w"],
) -> SurfaceFrame:
    """The surface at the `chosen` pixels, from differences to known neighbours.

    A pixel without a neighbour on either side of an axis faces the camera there.
    """
    footprint = pixel_footprints(pointmap, known)[chosen]
    points = pointmap[chosen]
    ray = points / np.maximum(np.linalg.norm(points, axis=-1, keepdims=True), 1e-12)
    right = _nearer_difference(pointmap, known, 1)[chosen]
    down = _nearer_difference(pointmap, known, 0)[chosen]
    # square to the ray, so that what has no neighbour is a disc that faces the camera
    _replace_missing(right, _unit(np.stack([ray[:, 2], 0 * ray[:, 0], -ray[:, 0]], -1)), footprint)
    _replace_missing(down, np.cross(ray, _unit(right)), footprint)
    normal = np.cross(right, down)
    size = np.linalg.norm(normal, axis=-1, keepdims=True)
    flat = size > 1e-3 * np.linalg.norm(right, axis=-1, keepdims=True) * np.linalg.norm(
        down, axis=-1, keepdims=True
    )
    normal = np.where(flat, normal / np.maximum(size, 1e-20), ray)
    normal *= -np.sign(np.sum(normal * ray, -1, keepdims=True) + 1e-20)
    return SurfaceFrame(
        normal.astype(np.float32), right.astype(np.float32), down.astype(np.float32), footprint
    )


def _shape(
    frame: SurfaceFrame,
) -> tuple[Float32[np.ndarray, "n 3"], Float32[np.ndarray, "n 3 3"]]:
    """Standard deviations, and axes as the columns of rotation matrices."""
    n = frame.normal
    along = frame.right - np.sum(frame.right * n, -1, keepdims=True) * n
    along = np.where(
        np.linalg.norm(along, axis=-1, keepdims=True) > _GRAZING * frame.footprint[:, None],
        along,
        _perpendicular(n),
    )
    first = _unit(along)
    second = np.cross(n, first)
    least, most = (f * frame.footprint for f in (_LEAST_FOOTPRINTS, _MOST_FOOTPRINTS))
    wide = np.clip(np.linalg.norm(frame.right, axis=-1), least, most)
    high = np.clip(np.abs(np.sum(frame.down * second, -1)), least, most)
    sigma = WIDTH * np.stack([wide, high, FLATNESS * np.minimum(wide, high)], axis=-1)
    sigma = np.maximum(sigma, 1e-9)
    return sigma.astype(np.float32), np.stack([first, second, n], axis=-1)


def _nearer_difference(
    pointmap: Float32[np.ndarray, "h w 3"], known: Bool[np.ndarray, "h w"], axis: int
) -> Float32[np.ndarray, "h w 3"]:
    """Difference to the next pixel along `axis`, or from the one before where that is shorter."""
    step = np.diff(pointmap, axis=axis)
    both = known[1:] & known[:-1] if axis == 0 else known[:, 1:] & known[:, :-1]
    length = np.where(both, np.sum(step * step, axis=-1), np.inf)
    after = [(0, 1), (0, 0)] if axis == 0 else [(0, 0), (0, 1)]
    before = [(1, 0), (0, 0)] if axis == 0 else [(0, 0), (1, 0)]
    ahead, behind = (np.pad(length, pad, constant_values=np.inf) for pad in (after, before))
    steps = [np.pad(step, [*pad, (0, 0)]) for pad in (after, before)]
    nearer = np.where((behind < ahead)[..., None], steps[1], steps[0])
    return np.where(np.isfinite(np.minimum(ahead, behind))[..., None], nearer, np.nan)


def _replace_missing(
    way: Float[np.ndarray, "n 3"],
    instead: Float[np.ndarray, "n 3"],
    footprint: Float32[np.ndarray, "n"],
) -> None:
    missing = ~np.isfinite(way[:, 0])
    way[missing] = instead[missing] * footprint[missing, None]


def _unit(vectors: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-20))


def _perpendicular(n: Float32[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Some direction square to each unit vector."""
    other = np.where(np.abs(n[:, :1]) < 0.7, [[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]])
    return np.asarray(np.cross(n, other))


def relative_noise(distance: Float32[np.ndarray, "h w"], known: Bool[np.ndarray, "h w"]) -> float:
    """Standard deviation of what is not smooth along a row, as a share of the distance.

    The second difference of independent noise is √6 as large; its median is of a plane's pixels,
    not of an edge's.
    """
    three = known[:, 2:] & known[:, 1:-1] & known[:, :-2]
    if not three.any():
        return 0.0
    bend = distance[:, 2:] - 2 * distance[:, 1:-1] + distance[:, :-2]
    ratios = np.abs(bend[three]) / np.maximum(distance[:, 1:-1][three], 1e-9)
    return float(1.4826 * np.median(ratios) / np.sqrt(6.0))


def smoothed(
    pointmap: Float32[np.ndarray, "h w 3"], known: Bool[np.ndarray, "h w"]
) -> Float32[np.ndarray, "h w 3"]:
    """The pointmap with each point moved along its ray to where its neighbours' surface lies.

    A bilateral filter of the distance, first along rows, then along columns (separable: Pham and
    van Vliet, 2005), whose width in range is three times the noise that is found; a clean
    pointmap comes back as it is.
    """
    distance = np.where(known, np.linalg.norm(np.nan_to_num(pointmap), axis=-1), 0.0)
    distance = distance.astype(np.float32)
    noise = relative_noise(distance, known)
    if noise < _NOISE_WORTH_SMOOTHING:
        return pointmap
    width = (3.0 * noise * distance).astype(np.float32)
    found = distance
    for axis in (1, 0):
        found = _bilateral_along(found, known, width, axis)
    factor = found / np.maximum(distance, 1e-12)
    return np.where(known[..., None], pointmap * factor[..., None], pointmap).astype(np.float32)


def _bilateral_along(
    distance: Float32[np.ndarray, "h w"],
    known: Bool[np.ndarray, "h w"],
    width: Float32[np.ndarray, "h w"],
    axis: int,
) -> Float32[np.ndarray, "h w"]:
    total, weights = distance.copy(), np.ones_like(distance)
    scale = 1.0 / np.maximum(width, 1e-12)
    for step in range(1, _SMOOTHING_TAPS + 1):
        near = np.float32(np.exp(-0.5 * (step / (0.6 * _SMOOTHING_TAPS)) ** 2))
        head = tuple(slice(step, None) if a == axis else slice(None) for a in (0, 1))
        tail = tuple(slice(None, -step) if a == axis else slice(None) for a in (0, 1))
        for here, there in ((head, tail), (tail, head)):
            difference = distance[there] - distance[here]
            weight = near * np.exp(-0.5 * (difference * scale[here]) ** 2) * known[there]
            total[here] += weight * distance[there]
            weights[here] += weight
    return np.asarray(total / weights)
