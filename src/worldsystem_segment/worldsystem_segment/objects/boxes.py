# SPDX-License-Identifier: Apache-2.0
"""Oriented boxes around the points of an object."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, Float64

TRIM_PERCENT = 1.0


def oriented_box(
    points: Float[np.ndarray, "n 3"], up: Float[np.ndarray, "3"] | None
) -> tuple[Float64[np.ndarray, "4 4"], Float64[np.ndarray, "3"]]:
    """`world_from_box` at the box's centre, and its edge lengths.

    With `up` the box stands upright (its z axis is `up`) on the smallest rectangle around the
    points' plan; without, its axes are the principal ones. The outermost 1 % of the points is
    trimmed at each side. Needs one point.
    """
    axes = _principal_axes(points) if up is None else _upright_axes(points, up)
    local = points.astype(np.float64) @ axes
    low, high = np.percentile(local, (TRIM_PERCENT, 100.0 - TRIM_PERCENT), axis=0)
    world_from_box = np.eye(4)
    world_from_box[:3, :3] = axes
    world_from_box[:3, 3] = axes @ (0.5 * (low + high))
    return world_from_box, np.asarray(high - low, dtype=np.float64)


def _principal_axes(points: Float[np.ndarray, "n 3"]) -> Float64[np.ndarray, "3 3"]:
    centred = points.astype(np.float64) - points.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1].copy()
    axes[:, 2] = np.cross(axes[:, 0], axes[:, 1])
    return np.asarray(axes)


def _upright_axes(
    points: Float[np.ndarray, "n 3"], up: Float[np.ndarray, "3"]
) -> Float64[np.ndarray, "3 3"]:
    up = np.asarray(up, np.float64) / np.linalg.norm(up)
    first = np.cross(up, np.eye(3)[np.abs(up).argmin()])
    first /= np.linalg.norm(first)
    second = np.cross(up, first)
    centred = points.astype(np.float64) - points.mean(axis=0)
    plan = np.stack([centred @ first, centred @ second], axis=1).astype(np.float32)
    low, high = np.percentile(plan, (TRIM_PERCENT, 100.0 - TRIM_PERCENT), axis=0)
    inner = plan[((plan >= low) & (plan <= high)).all(axis=1)]
    angle_deg = cv2.minAreaRect(inner)[2] if len(inner) >= 3 else 0.0
    yaw_rad = np.deg2rad(angle_deg)
    along = np.cos(yaw_rad) * first + np.sin(yaw_rad) * second
    return np.stack([along, np.cross(up, along), up], axis=1)
