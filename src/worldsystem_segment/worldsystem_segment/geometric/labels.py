# SPDX-License-Identifier: Apache-2.0
"""Words for what geometry and colour show: colour names, sizes and shapes. No semantics."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

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
    edges = np.linalg.svd(points - points.mean(axis=0), compute_uv=False) / np.sqrt(len(points))
    spread = _spread(normals)
    if _is_ball(points, normals, float(edges[0])) and spread < 0.95:
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
    points: Float32[np.ndarray, "n 3"], normals: Float32[np.ndarray, "n 3"], scatter: float
) -> bool:
    mean = points.mean(axis=0)
    local = (points - mean).astype(np.float64)
    a = np.column_stack([2.0 * local, np.ones(len(local))])
    solution, *_ = np.linalg.lstsq(a, (local**2).sum(axis=1), rcond=None)
    radius_squared = solution[3] + solution[:3] @ solution[:3]
    if radius_squared <= 0:
        return False
    radius = float(np.sqrt(radius_squared))
    away = local - solution[:3]
    length = np.linalg.norm(away, axis=1)
    error = float(np.median(np.abs(length - radius))) / radius
    outward = (normals * away).sum(axis=1) / np.maximum(length, 1e-12)
    return error < 0.06 and float(np.median(outward)) > 0.93 and radius < 4.0 * scatter


def _horizontal(
    vectors: Float32[np.ndarray, "n 3"], up: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "n 2"]:
    first = np.cross(up, np.eye(3)[np.abs(up).argmin()])
    first /= np.linalg.norm(first)
    return np.asarray(vectors @ np.stack([first, np.cross(up, first)], axis=1))


def _squareness(side_normals: Float32[np.ndarray, "n 3"], up: Float[np.ndarray, "3"]) -> float:
    # 1 when all horizontal normals are parallel or at right angles: yaw times four is one angle
    flat = _horizontal(side_normals, up)
    yaw = 4.0 * np.arctan2(flat[:, 1], flat[:, 0])
    return float(np.hypot(np.cos(yaw).mean(), np.sin(yaw).mean()))


def _is_round(points: Float32[np.ndarray, "n 3"], up: Float[np.ndarray, "3"]) -> bool:
    flat = _horizontal(points, up)
    flat = flat - flat.mean(axis=0)
    a = np.column_stack([2.0 * flat, np.ones(len(flat))])
    solution, *_ = np.linalg.lstsq(a, (flat**2).sum(axis=1), rcond=None)
    radius_squared = solution[2] + solution[:2] @ solution[:2]
    if radius_squared <= 0:
        return False
    radius = float(np.sqrt(radius_squared))
    error = np.median(np.abs(np.linalg.norm(flat - solution[:2], axis=1) - radius)) / radius
    return bool(error < 0.08 and radius < 4.0 * flat.std())
