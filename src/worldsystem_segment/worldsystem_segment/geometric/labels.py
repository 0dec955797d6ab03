# SPDX-License-Identifier: Apache-2.0
"""Words for what geometry and colour show: colour names, sizes and shapes. No semantics."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, Float32, Float64, UInt8

SMALL, LARGE = 0.10, 0.45  # longest edge [scene unit]
GREY_CHROMA = 12.0
_HUES = (
    (15.0, "pink"), (55.0, "red"), (85.0, "orange"), (115.0, "yellow"), (175.0, "green"),
    (235.0, "cyan"), (312.0, "blue"), (340.0, "purple"), (361.0, "pink"),
)  # fmt: skip


def median_lab(rgb: UInt8[np.ndarray, "n 3"]) -> Float32[np.ndarray, "3"]:
    """Median colour in CIE Lab (L 0–100)."""
    median = np.median(rgb.reshape(-1, 3), axis=0).astype(np.float32) / np.float32(255)
    return np.asarray(cv2.cvtColor(median.reshape(1, 1, 3), cv2.COLOR_RGB2LAB)[0, 0])


def colour_name(lab: Float[np.ndarray, "3"]) -> str:
    """One of eleven colour words, or cyan, for a CIE Lab colour."""
    lightness, chroma = float(lab[0]), float(np.hypot(lab[1], lab[2]))
    if chroma < GREY_CHROMA:
        return "black" if lightness < 22 else "white" if lightness > 82 else "grey"
    hue = float(np.degrees(np.arctan2(lab[2], lab[1]))) % 360.0
    name = next(word for limit, word in _HUES if hue < limit)
    if name == "pink" and lightness < 45:
        return "red"
    if name == "red" and lightness > 68:
        return "pink"
    if (name == "orange" and lightness < 55) or (name == "yellow" and lightness < 40):
        return "brown"
    return "brown" if name == "red" and chroma < 30 else name


def size_name(longest: float) -> str:
    """`small`, `large` or nothing, for a longest edge in scene units."""
    return "small" if longest < SMALL else "large" if longest > LARGE else ""


def shape_name(
    points: Float32[np.ndarray, "n 3"],
    normals: Float32[np.ndarray, "n 3"],
    up: Float[np.ndarray, "3"] | None,
) -> str:
    """`box`, `ball`, `cylinder`, `flat`, or `object` when none fits what is seen.

    Points and normals [any frame, one for all] are of the visible side; box and cylinder need to
    know what is up. One view can deceive: a box seen face on is flat. Votes over views decide.
    """
    if len(points) < 12:
        return "object"
    local = points.astype(np.float64) - points.mean(axis=0)
    edges = np.sqrt(np.maximum(np.linalg.eigvalsh(local.T @ local)[::-1], 0.0) / len(points))
    spread = _spread(normals)
    if spread < 0.95 and _is_ball(local, normals, float(edges[0])):
        return "ball"
    if spread > 0.97 and edges[2] < 0.12 * edges[1]:
        return "flat"
    if up is None:
        return "object"
    tilt = normals @ up.astype(np.float32)
    side = np.abs(tilt) < 0.35
    squareness = _squareness(normals[side], up) if side.sum() >= 8 else 0.0
    aligned = side | (tilt > 0.9)
    if aligned.mean() > 0.7 and squareness > 0.75:
        return "box"
    if side.mean() > 0.6 and _is_round(points[side], up):
        return "cylinder"
    return "object"


def _spread(normals: Float32[np.ndarray, "n 3"]) -> float:
    # length of the mean normal: 1 when all are parallel
    return float(np.linalg.norm(normals.mean(axis=0)))


def _is_ball(
    local: Float64[np.ndarray, "n 3"], normals: Float32[np.ndarray, "n 3"], scatter: float
) -> bool:
    # points about their mean
    middle, radius_squared = _sphere(local)
    if radius_squared <= 0:
        return False
    radius = float(np.sqrt(radius_squared))
    away = local - middle
    length = np.linalg.norm(away, axis=1)
    error = float(np.median(np.abs(length - radius))) / radius
    outward = (normals * away).sum(axis=1) / np.maximum(length, 1e-12)
    return error < 0.06 and float(np.median(outward)) > 0.93 and radius < 4.0 * scatter


def _sphere(local: Float64[np.ndarray, "n d"]) -> tuple[Float64[np.ndarray, "d"], float]:
    """Centre and squared radius of the sphere (circle) through points about their mean.

    |p|^2 = 2 p.c + (r^2 - |c|^2) in least squares; the mean is 0, so both parts stand alone.
    """
    square = (local**2).sum(axis=1)
    middle = 0.5 * np.linalg.lstsq(local.T @ local, local.T @ square, rcond=1e-12)[0]
    return middle, float(square.mean() + middle @ middle)


def _horizontal(
    vectors: Float32[np.ndarray, "n 3"], up: Float[np.ndarray, "3"]
) -> Float64[np.ndarray, "n 2"]:
    # two axes of the plane that `up` is the normal of; which ones matters to nobody
    across = np.linalg.qr(np.column_stack([up, np.eye(3)]).astype(np.float64))[0][:, 1:]
    return np.asarray(vectors @ across)


def _squareness(side_normals: Float32[np.ndarray, "n 3"], up: Float[np.ndarray, "3"]) -> float:
    # 1 when all horizontal normals are parallel or at right angles: yaw times four is one angle
    flat = _horizontal(side_normals, up)
    yaw = 4.0 * np.arctan2(flat[:, 1], flat[:, 0])
    return float(np.hypot(np.cos(yaw).mean(), np.sin(yaw).mean()))


def _is_round(points: Float32[np.ndarray, "n 3"], up: Float[np.ndarray, "3"]) -> bool:
    flat = _horizontal(points, up).astype(np.float64)
    flat -= flat.mean(axis=0)
    middle, radius_squared = _sphere(flat)
    if radius_squared <= 0:
        return False
    radius = float(np.sqrt(radius_squared))
    error = np.median(np.abs(np.linalg.norm(flat - middle, axis=1) - radius)) / radius
    return bool(error < 0.08 and radius < 4.0 * flat.std())
