# SPDX-License-Identifier: Apache-2.0
"""Gaussians from a pointmap: one disc for each known pixel, lying in the surface.

A disc is as wide as the way to its neighbours, so that the surface closes, and thin across it.
Its colour is such that all of them together draw the picture (`colours`).
Confidence decides whether a pixel gets one; as opacity it would make a wall of fog (measured:
-5 dB). Depth edges are not bridged: a neighbour's difference is the smaller of the two sides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from worldsystem_core.splats.colours import prefiltered
from worldsystem_core.splats.gaussians import Gaussians, quaternions_wxyz

WIDTH = 0.55
"""Standard deviation in the surface, in distances to the neighbour."""
FLATNESS = 0.1
"""Thickness, as `WIDTH` but in widths of a pixel at the point's distance."""
ROUND = 1.2
"""Ellipses less long than that are not turned: noise would turn them anyhow, at 6 % more bytes."""
OPACITY = 0.99
LEAST_CONFIDENCE = 0.1
"""Pixels that a back-end trusts less get no disc."""
_LEAST_FOOTPRINTS, _MOST_FOOTPRINTS = 0.5, 4.0
_GRAZING = 0.05
_BENT = 0.4
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


@dataclass(frozen=True, eq=False)
class SurfacePoints:
    """A pointmap that is ready for discs: smoothed, and which pixels lie in no surface.

    `known` are all finite, trusted pixels; `loose` those of them on a depth edge or in foliage,
    whose neighbours tell nothing of their surface.
    """

    points: Float32[np.ndarray, "h w 3"]
    known: Bool[np.ndarray, "h w"]
    loose: Bool[np.ndarray, "h w"]
    footprint: Float32[np.ndarray, "h w"]

    @staticmethod
    def of(
        pointmap: Float32[np.ndarray, "h w 3"],
        confidence: Float32[np.ndarray, "h w"] | None = None,
        least_confidence: float = LEAST_CONFIDENCE,
    ) -> SurfacePoints:
        """Smooth `pointmap` along its surfaces where it is noisy, and find its edges."""
        distance = np.sqrt(np.einsum("ijk,ijk->ij", pointmap, pointmap))
        known = np.isfinite(distance) & (distance > 0)  # at the camera itself nothing has a width
        if confidence is not None:
            known &= confidence >= least_confidence
        distance = np.where(known, distance, np.float32(0))
        points, distance = smoothed(pointmap, distance, known)
        footprint = pixel_footprints(points, distance, known)
        loose = _lies_in_no_surface(distance, known, footprint)
        return SurfacePoints(points, known, loose, footprint)


def discs_from_pointmap(
    pointmap: Float32[np.ndarray, "h w 3"],
    rgb: UInt8[np.ndarray, "h w 3"],
    confidence: Float32[np.ndarray, "h w"] | None = None,
) -> Gaussians:
    """One disc for each known pixel, row-major, in the pointmap's frame."""
    surface = SurfacePoints.of(pointmap, confidence)
    return discs_at(surface, surface.known, rgb, confidence)


def discs_at(
    surface: SurfacePoints,
    chosen: Bool[np.ndarray, "h w"],
    rgb: UInt8[np.ndarray, "h w 3"],
    confidence: Float32[np.ndarray, "h w"] | None = None,
) -> Gaussians:
    """One disc for each `chosen` pixel, row-major; they must be among the known.

    Opacity is 0.7 at the least confidence and `OPACITY` at 1.
    """
    if not chosen.any():
        return Gaussians.empty()
    scales, axes = _shape(surface_frame(surface, chosen))
    opacity = _opacity(surface, confidence)
    colours = prefiltered(rgb, surface.points[..., 2], opacity, chosen, WIDTH)
    rotations = quaternions_wxyz(axes)
    return Gaussians(surface.points[chosen], scales, rotations, colours, opacity[chosen])


def _opacity(
    surface: SurfacePoints, confidence: Float32[np.ndarray, "h w"] | None
) -> Float32[np.ndarray, "h w"]:
    """Of each known pixel's disc; 0 where there is none."""
    if confidence is None:
        return np.where(surface.known, np.float32(OPACITY), np.float32(0))
    share = np.clip((confidence - LEAST_CONFIDENCE) / (1 - LEAST_CONFIDENCE), 0, 1)
    return np.where(surface.known, 0.7 + (OPACITY - 0.7) * share, 0).astype(np.float32)


def pixel_footprints(
    pointmap: Float32[np.ndarray, "h w 3"],
    distance: Float32[np.ndarray, "h w"],
    known: Bool[np.ndarray, "h w"],
) -> Float32[np.ndarray, "h w"]:
    """How wide a pixel is at each point's distance; 0 where unknown.

    The pinhole's constant, width over distance, is the median over every third row: at least half
    of all neighbours do not lie on an edge.
    """
    rows = slice(None, None, 3)
    step = np.diff(pointmap[rows], axis=1)
    both = known[rows, 1:] & known[rows, :-1]
    ratios = np.sqrt(np.einsum("nk,nk->n", step[both], step[both])) / distance[rows, 1:][both]
    ratio = np.float32(np.median(ratios)) if ratios.size else np.float32(0)
    return np.asarray(ratio * distance, dtype=np.float32)


def surface_frame(surface: SurfacePoints, chosen: Bool[np.ndarray, "h w"]) -> SurfaceFrame:
    """The surface at the `chosen` pixels, from differences to known neighbours.

    A loose pixel, and one without a neighbour on either side of an axis, faces the camera.
    """
    footprint = surface.footprint[chosen]
    points = surface.points[chosen]
    ray = _unit(points)
    right = _nearer_difference(surface, chosen, 1)
    down = _nearer_difference(surface, chosen, 0)
    loose = surface.loose[chosen]
    right[loose] = down[loose] = np.nan
    # square to the ray, so that what has no neighbour is a disc that faces the camera
    across = np.stack([ray[:, 2], 0 * ray[:, 0], -ray[:, 0]], -1)
    _replace_missing(right, _unit(across), footprint)
    _replace_missing(down, _cross(ray, _unit(right)), footprint)
    normal = _cross(right, down)
    size = _length(normal)
    flat = size > 1e-3 * _length(right) * _length(down)
    normal = np.where(flat, normal / np.maximum(size, 1e-20), ray)
    normal *= np.where(np.einsum("ij,ij->i", normal, ray) > 0, -1, 1)[:, None]
    return SurfaceFrame(normal.astype(np.float32), right, down, footprint)


def _shape(
    frame: SurfaceFrame,
) -> tuple[Float32[np.ndarray, "n 3"], Float32[np.ndarray, "n 3 3"]]:
    """Standard deviations, and axes as the columns of rotation matrices.

    The covariance is that of the ways to the next pixel right and down, so that to the keyframe's
    camera each disc is a round dot `WIDTH` pixels wide, however slanted the surface is.
    """
    n = frame.normal
    along = frame.right - np.einsum("ij,ij->i", frame.right, n)[:, None] * n
    length = _length(along)
    grazing = length < _GRAZING * frame.footprint[:, None]
    first = np.where(grazing, _perpendicular(n), along / np.maximum(length, 1e-20))
    second = _cross(n, first)
    right, down_first, down_second = (
        np.einsum("ij,ij->i", way, axis)
        for way, axis in ((frame.right, first), (frame.down, first), (frame.down, second))
    )
    # `first` lies along the way to the right, so that way has no part along `second`
    wide, high, cosine, sine = _principal(right, down_first, down_second)
    least, most = (f * frame.footprint for f in (_LEAST_FOOTPRINTS, _MOST_FOOTPRINTS))
    wide, high = np.clip(wide, least, most), np.clip(high, least, most)
    sigma = WIDTH * np.stack([wide, high, FLATNESS * frame.footprint], axis=-1)
    longest = cosine[:, None] * first + sine[:, None] * second
    axes = np.stack([longest, _cross(n, longest), n], axis=-1)
    return np.maximum(sigma, 1e-9).astype(np.float32), axes.astype(np.float32)


def _principal(
    right: Float32[np.ndarray, "n"],
    down_first: Float32[np.ndarray, "n"],
    down_second: Float32[np.ndarray, "n"],
) -> tuple[Float32[np.ndarray, "n"], ...]:
    """Half axes of the ellipse that (right, 0) and the way down span, longest first, and the
    direction (cosine, sine) of the longest; of one that is nearly round those along `first`."""
    mean = 0.5 * (right**2 + down_first**2 + down_second**2)
    along = 0.5 * (right**2 + down_first**2 - down_second**2)
    across = down_first * down_second
    excess = np.hypot(along, across)
    angle = 0.5 * np.arctan2(across, along)
    long, short = np.sqrt(mean + excess), np.sqrt(np.maximum(mean - excess, 0))
    turned = long > ROUND * short
    return (
        np.where(turned, long, right),
        np.where(turned, short, np.abs(down_second)),
        np.where(turned, np.cos(angle), np.float32(1)),
        np.where(turned, np.sin(angle), np.float32(0)),
    )


def _nearer_difference(
    surface: SurfacePoints, chosen: Bool[np.ndarray, "h w"], axis: int
) -> Float32[np.ndarray, "n 3"]:
    """Difference to the next pixel along `axis`, or from the one before where that is shorter.

    NaN where neither is known.
    """
    places = np.nonzero(chosen)
    here, size = surface.points[chosen], chosen.shape[axis]
    ways, lengths = [], []
    for sign in (1, -1):
        there = list(places)
        there[axis] = np.clip(places[axis] + sign, 0, size - 1)
        row, column = there
        way = np.float32(sign) * (surface.points[row, column] - here)
        inside = (there[axis] != places[axis]) & surface.known[row, column]
        ways.append(way)
        lengths.append(np.where(inside, np.einsum("ij,ij->i", way, way), np.inf))
    way = np.where((lengths[1] < lengths[0])[:, None], ways[1], ways[0])
    return np.where(np.isfinite(np.minimum(*lengths))[:, None], way, np.float32(np.nan))


def _lies_in_no_surface(
    distance: Float32[np.ndarray, "h w"],
    known: Bool[np.ndarray, "h w"],
    footprint: Float32[np.ndarray, "h w"],
) -> Bool[np.ndarray, "h w"]:
    """Pixels in foliage, or on the ramp that blurred depth makes of an edge: far from both
    neighbours, and not half-way between them, as on a surface seen at a grazing angle. Discs
    through their neighbours would be long spikes."""
    found = np.zeros(known.shape, bool)
    for turned in (False, True):
        d, k, f, out = (a.T if turned else a for a in (distance, known, footprint, found))
        step = np.diff(d, axis=1)
        behind, ahead = step[:, :-1], step[:, 1:]
        shorter = np.minimum(np.abs(behind), np.abs(ahead))
        loose = shorter > _MOST_FOOTPRINTS * f[:, 1:-1]
        loose &= np.abs(ahead - behind) > _BENT * shorter
        out[:, 1:-1] |= loose & k[:, :-2] & k[:, 2:]
    return found


def _replace_missing(
    way: Float32[np.ndarray, "n 3"],
    instead: Float32[np.ndarray, "n 3"],
    footprint: Float32[np.ndarray, "n"],
) -> None:
    missing = ~np.isfinite(way[:, 0])
    way[missing] = instead[missing] * footprint[missing, None]


def _length(vectors: Float32[np.ndarray, "n 3"]) -> Float32[np.ndarray, "n 1"]:
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, None])


def _unit(vectors: Float32[np.ndarray, "n 3"]) -> Float32[np.ndarray, "n 3"]:
    return np.asarray(vectors / np.maximum(_length(vectors), np.float32(1e-20)))


def _cross(a: Float32[np.ndarray, "n 3"], b: Float32[np.ndarray, "n 3"]) -> np.ndarray:
    """Cross products; several times as fast as numpy's for rows of three."""
    (ax, ay, az), (bx, by, bz) = a.T, b.T
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=-1)


def _perpendicular(n: Float32[np.ndarray, "n 3"]) -> Float32[np.ndarray, "n 3"]:
    """Some unit vector square to each unit vector."""
    other = np.zeros_like(n)
    beside = np.abs(n[:, 0]) < 0.7
    other[beside, 0] = other[~beside, 1] = 1
    return _unit(_cross(n, other))


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
    pointmap: Float32[np.ndarray, "h w 3"],
    distance: Float32[np.ndarray, "h w"],
    known: Bool[np.ndarray, "h w"],
) -> tuple[Float32[np.ndarray, "h w 3"], Float32[np.ndarray, "h w"]]:
    """Each point moved along its ray to where its neighbours' surface lies; and its distance.

    A bilateral filter of the distance, first along rows, then along columns (separable: Pham and
    van Vliet, 2005), whose width in range is three times the noise that is found; a clean
    pointmap comes back as it is.
    """
    noise = relative_noise(distance, known)
    if noise < _NOISE_WORTH_SMOOTHING:
        return pointmap, distance
    width = (3.0 * noise * distance).astype(np.float32)
    found = distance
    for axis in (1, 0):
        found = _bilateral_along(found, known, width, axis)
    factor = np.where(known, found / np.maximum(distance, 1e-12), np.float32(1))
    return (pointmap * factor[..., None]).astype(np.float32), found


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
            offset = difference * scale[here]
            weight = near * np.exp(-0.5 * offset * offset) * known[there]
            total[here] += weight * distance[there]
            weights[here] += weight
    return np.asarray(total / weights)
