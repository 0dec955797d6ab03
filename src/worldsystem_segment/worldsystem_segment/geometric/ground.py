# SPDX-License-Identifier: Apache-2.0
"""Finding the ground: a direction, a plane, and a smooth relief on top of the plane.

Outdoors the ground is no plane. Its relief is the low-pass of the heights of pixels that look up
and lie low, re-weighted so that whatever stands on it drops out (the idea of asymmetric
least-squares baselines, Eilers 2003, with a normalised Gaussian as the smoother).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from jaxtyping import Bool, Float32

from worldsystem_segment.config import SegmentConfig
from worldsystem_segment.geometric.ground_kernels import (
    beside_ground,
    densest,
    heights_by_bin,
    looking,
    mean_near,
    plane_equations,
    sampled,
)
from worldsystem_segment.objects.normals import planes_of
from worldsystem_segment.objects.view import View

UP_PRIOR_CAM = np.array([0.0, -1.0, -0.5], np.float32) / np.float32(np.sqrt(1.25))
MIN_GROUND_FRACTION = 0.03
LEVEL = 0.8  # cosine: surfaces up to 37 degrees steep may be ground
TALL = 2.0  # times the tolerance of the ground
SAMPLE_PX = 3  # of the pixels that direction and plane are fitted to
HEIGHT_BINS = 63
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
    points, normals = planes_of(view.points_cam), planes_of(view.normals)
    level = np.asarray(looking(normals, view.valid, up, np.float32(LEVEL)))
    if _too_little(level):
        return None
    plane = _fit_plane(sampled(points, level, SAMPLE_PX), up, config.relief)
    if plane is None:
        return None
    relief, sigma = _relief(points, plane, level, config)
    tolerance = np.float32(max(config.ground_tolerance, 3.5 * sigma))
    parts = points, normals, view.valid, plane, relief, tolerance, np.float32(TALL)
    mask, below, tall = beside_ground(*parts)
    if _too_little(mask):
        return None
    return Ground(up_cam=plane[:3].copy(), tall=tall, mask=mask, below=below)


def _too_little(mask: Bool[np.ndarray, "h w"]) -> bool:
    return int(np.count_nonzero(mask)) < MIN_GROUND_FRACTION * mask.size


def estimate_up(
    view: View, up_known_cam: Float32[np.ndarray, "3"] | None
) -> Float32[np.ndarray, "3"] | None:
    """The commonest normal near the expected up direction, by mean shift from several starts."""
    prior = UP_PRIOR_CAM if up_known_cam is None else up_known_cam.astype(np.float32)
    gate = np.float32(0.3 if up_known_cam is None else 0.92)
    normals = planes_of(view.normals)
    normals = sampled(normals, looking(normals, view.valid, prior, gate), SAMPLE_PX)
    if normals.shape[1] < 20:
        return None
    best = densest(normals, (prior @ normals) ** 2)
    for kernel in (0.9, 0.94, 0.97, 0.97):
        best = mean_near(normals, best, np.float32(kernel))
    return np.asarray(best) if best.any() else None


def _fit_plane(
    points: Float32[np.ndarray, "3 n"], up: Float32[np.ndarray, "3"], relief: float
) -> Float32[np.ndarray, "4"] | None:
    """Plane (n, d) with n.p + d = height, through the lowest strong layer of level points."""
    if not points.size:
        return None
    found, low, width = heights_by_bin(points, up, HEIGHT_BINS)
    bins = np.convolve(found, np.ones(5), mode="same")
    lowest = int(np.flatnonzero(bins > 0.4 * bins.max())[0])
    peak = lowest + int(bins[lowest : lowest + 6].argmax())
    plane = np.append(up, -(low + (peak + 0.5) * width)).astype(np.float32)
    first = np.cross(up, np.eye(3, dtype=np.float32)[np.abs(up).argmin()])
    first /= np.linalg.norm(first)
    basis = np.stack([first, np.cross(up, first)], axis=1)
    for gate in (1.5 * relief, relief, relief):
        moved = _refit(points, plane, gate, basis)
        if moved is None:
            return None
        plane = moved
    return plane


def _refit(
    points: Float32[np.ndarray, "3 n"],
    plane: Float32[np.ndarray, "4"],
    gate: float,
    basis: Float32[np.ndarray, "3 2"],
) -> Float32[np.ndarray, "4"] | None:
    # one Gauss-Newton step on tilt and offset: distance = tilt . (p - mean) + shift
    equations, mean, count = plane_equations(points, plane, np.float32(gate), basis)
    if count < 20:
        return None
    solution = np.linalg.lstsq(equations[:, :3], equations[:, 3], rcond=1e-8)[0]
    normal = plane[:3] + basis @ solution[:2].astype(np.float32)
    offset = plane[3] + np.float32(solution[2]) - (normal - plane[:3]) @ mean
    length = np.float32(np.linalg.norm(normal))
    return np.append(normal, offset).astype(np.float32) / length


def _relief(
    points: Float32[np.ndarray, "3 h w"],
    plane: Float32[np.ndarray, "4"],
    level: Bool[np.ndarray, "h w"],
    config: SegmentConfig,
) -> tuple[Float32[np.ndarray, "h w"], float]:
    """Height of the ground above the plane, and its own scatter about that [of depth]."""
    coarse = points[:, ::COARSE, ::COARSE]
    height = np.tensordot(plane[:3], coarse, 1) + plane[3]
    relative = np.nan_to_num(height / coarse[2])
    candidate = level[::COARSE, ::COARSE] & np.isfinite(height)
    relief = np.zeros_like(relative)
    for gate in (config.relief, 0.6 * config.relief, 0.35 * config.relief):
        member = candidate & (np.abs(relative - relief) < gate)
        relief = _smooth(relative, member)
    scatter = np.abs(relative - relief)[member]
    sigma = float(1.4826 * np.median(scatter)) if scatter.size else 0.0
    fine = cv2.resize(relief, level.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(fine), min(sigma, 0.25 * config.relief)


def _smooth(
    relative: Float32[np.ndarray, "a b"], member: Bool[np.ndarray, "a b"]
) -> Float32[np.ndarray, "a b"]:
    # normalised Gaussian; where it knows nothing it falls back to a wider one, then to the plane
    result = np.zeros_like(relative)
    value, known = np.where(member, relative, np.float32(0)), member.astype(np.float32)
    for share in (6, 20):
        down, across = _blurs(*relative.shape, relative.shape[1] / share)
        trust = np.float32(0.05)
        weight, total = down @ known @ across, down @ value @ across
        result = (total + trust * result) / (weight + trust)
    return np.asarray(result, dtype=np.float32)


@cache
def _blurs(
    height: int, width: int, sigma: float
) -> tuple[Float32[np.ndarray, "a a"], Float32[np.ndarray, "b b"]]:
    """A Gaussian blur as the two matrices that do it from the left and from the right.

    A kernel as wide as the picture costs less so: two products of matrices no larger than it.
    """
    size = int(np.rint(8.0 * sigma + 1.0)) | 1  # as OpenCV does for float pictures
    kernel, one = cv2.getGaussianKernel(size, sigma, cv2.CV_32F), np.ones(1, np.float32)
    down, across = np.eye(height, dtype=np.float32), np.eye(width, dtype=np.float32)
    return cv2.sepFilter2D(down, -1, one, kernel), cv2.sepFilter2D(across, -1, kernel, one)
