# SPDX-License-Identifier: Apache-2.0
"""Finding the ground: a direction, a plane, and a smooth relief on top of the plane.

Outdoors the ground is no plane. Its relief is the low-pass of the heights of pixels that look up
and lie low, re-weighted so that whatever stands on it drops out (the idea of asymmetric
least-squares baselines, Eilers 2003, with a normalised Gaussian as the smoother).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float32

from worldsystem_segment.config import SegmentConfig
from worldsystem_segment.objects.normals import along
from worldsystem_segment.objects.view import View

UP_PRIOR_CAM = np.array([0.0, -1.0, -0.5], np.float32) / np.float32(np.sqrt(1.25))
MIN_GROUND_FRACTION = 0.03
LEVEL = 0.8  # cosine: surfaces up to 37 degrees steep may be ground
TALL = 2.0  # times the tolerance of the ground
COARSE = 4  # the relief is smooth: it is computed on every fourth pixel


@dataclass(frozen=True, kw_only=True, eq=False)
class Ground:
    """The ground of one view: `up` is its unit normal in the camera frame.

    `mask` are the ground's own pixels, `below` those clearly under it, which are no objects
    either, and `tall` those so high above it that no error of the relief explains them.
    """

    up_cam: Float32[np.ndarray, "3"]
    tall: Bool[np.ndarray, "h w"]
    mask: Bool[np.ndarray, "h w"]
    below: Bool[np.ndarray, "h w"]


def find_ground(
    view: View, up_known_cam: Float32[np.ndarray, "3"] | None, config: SegmentConfig
) -> Ground | None:
    """The ground of `view`, or None when no surface that looks up is large enough.

    `up_known_cam` is the up direction learned from earlier keyframes; without one the camera is
    taken to be upright within some 60 degrees of pitch.
    """
    up = estimate_up(view, up_known_cam)
    if up is None:
        return None
    level = view.valid & (along(view.normals, up) > LEVEL)
    if level.mean() < MIN_GROUND_FRACTION:
        return None
    plane = _fit_plane(view, level, up, config.relief)
    if plane is None:
        return None
    height, sigma = _height_above_relief(view, plane, level, config)
    up = plane[:3] / np.float32(np.linalg.norm(plane[:3]))
    tolerance = np.maximum(config.ground_tolerance * view.depth, 3.5 * sigma * view.depth)
    upward = along(view.normals, up) > 0.5
    mask = view.valid & (np.abs(height) < np.where(upward, tolerance, 0.6 * tolerance))
    if mask.mean() < MIN_GROUND_FRACTION:
        return None
    below = view.valid & (height <= -tolerance)
    return Ground(up_cam=up, tall=height > TALL * tolerance, mask=mask, below=below)


def estimate_up(
    view: View, up_known_cam: Float32[np.ndarray, "3"] | None
) -> Float32[np.ndarray, "3"] | None:
    """The commonest normal near the expected up direction, by mean shift from several starts."""
    prior = UP_PRIOR_CAM if up_known_cam is None else up_known_cam
    gate = 0.3 if up_known_cam is None else 0.92
    normals = view.normals[::3, ::3][view.valid[::3, ::3]]
    towards = normals @ prior
    normals, towards = normals[towards > gate], towards[towards > gate]
    if len(normals) < 20:
        return None
    starts = normals[np.linspace(0, len(normals) - 1, 24).astype(int)]
    weight = towards**2
    near = (starts @ normals.T > 0.94) * weight
    best = starts[int(near.sum(axis=1).argmax())]
    for kernel in (0.9, 0.94, 0.97, 0.97):
        chosen = normals @ best > kernel
        if not chosen.any():
            return None
        best = normals[chosen].mean(axis=0)
        best /= np.linalg.norm(best)
    return np.asarray(best, dtype=np.float32)


def _fit_plane(
    view: View, level: Bool[np.ndarray, "h w"], up: Float32[np.ndarray, "3"], relief: float
) -> Float32[np.ndarray, "4"] | None:
    """Plane (n, d) with n.p + d = height, through the lowest strong layer of level points."""
    points = view.points_cam[::3, ::3][level[::3, ::3]]
    height = points @ up
    depth = points[:, 2]
    edges = np.linspace(height.min() - 1e-3, height.max() + 1e-3, 64)
    bins = np.convolve(np.histogram(height, edges)[0], np.ones(5), mode="same")
    lowest = int(np.flatnonzero(bins > 0.4 * bins.max())[0])
    peak = lowest + int(bins[lowest : lowest + 6].argmax())
    offset = 0.5 * (edges[peak] + edges[peak + 1])
    plane = np.append(up, -offset).astype(np.float32)
    for gate in (1.5 * relief, relief, relief):
        distance = points @ plane[:3] + plane[3]
        close = np.abs(distance) < gate * depth
        if close.sum() < 20:
            return None
        plane = _refit(points[close], distance[close], plane)
    return plane


def _refit(
    points: Float32[np.ndarray, "n 3"],
    distance: Float32[np.ndarray, "n"],
    plane: Float32[np.ndarray, "4"],
) -> Float32[np.ndarray, "4"]:
    # one Gauss-Newton step on tilt and offset: distance = tilt . (p - mean) + shift
    mean = points.mean(axis=0)
    helper = np.eye(3, dtype=np.float32)[np.abs(plane[:3]).argmin()]
    first = np.cross(plane[:3], helper)
    first /= np.linalg.norm(first)
    basis = np.stack([first, np.cross(plane[:3], first)], axis=1).astype(np.float32)
    local = (points - mean) @ basis
    a = np.column_stack([local, np.ones(len(local), np.float32)]).astype(np.float64)
    weight = 1.0 / np.maximum(points[:, 2], 1e-6)
    a *= weight[:, None]
    solution = np.linalg.pinv(a.T @ a, rcond=1e-8) @ (a.T @ (distance * weight))
    normal = plane[:3] + basis @ solution[:2].astype(np.float32)
    offset = plane[3] + np.float32(solution[2]) - (normal - plane[:3]) @ mean
    length = np.float32(np.linalg.norm(normal))
    return np.append(normal, offset).astype(np.float32) / length


def _height_above_relief(
    view: View,
    plane: Float32[np.ndarray, "4"],
    level: Bool[np.ndarray, "h w"],
    config: SegmentConfig,
) -> tuple[Float32[np.ndarray, "h w"], float]:
    """Height of every pixel above the relief, and the relative scatter of the ground about it."""
    height = along(view.points_cam, plane[:3]) + plane[3]
    coarse, depth = height[::COARSE, ::COARSE], view.depth[::COARSE, ::COARSE]
    relative = np.nan_to_num(coarse / depth)
    candidate = level[::COARSE, ::COARSE] & np.isfinite(coarse)
    relief = np.zeros_like(relative)
    for gate in (config.relief, 0.6 * config.relief, 0.35 * config.relief):
        member = candidate & (np.abs(relative - relief) < gate)
        relief = _smooth(relative, member)
    scatter = np.abs(relative - relief)[member]
    sigma = float(1.4826 * np.median(scatter)) if scatter.size else 0.0
    size = (view.camera.width, view.camera.height)
    fine = cv2.resize(relief, size, interpolation=cv2.INTER_LINEAR)
    return height - fine * view.depth, min(sigma, 0.25 * config.relief)


def _smooth(
    relative: Float32[np.ndarray, "a b"], member: Bool[np.ndarray, "a b"]
) -> Float32[np.ndarray, "a b"]:
    # normalised Gaussian; where it knows nothing it falls back to a wider one, then to the plane
    result = np.zeros_like(relative)
    value = np.where(member, relative, np.float32(0))
    for sigma in (relative.shape[1] / 6, relative.shape[1] / 20):
        weight = cv2.GaussianBlur(member.astype(np.float32), (0, 0), sigma)
        total = cv2.GaussianBlur(value, (0, 0), sigma)
        trust = np.float32(0.05)
        result = (total + trust * result) / (weight + trust)
    return np.asarray(result, dtype=np.float32)
