# SPDX-License-Identifier: Apache-2.0
"""Where a window lies in the world: each call of the network has an origin and unit of its own.

Pictures that two windows share show the same pixels in both; the similarity between their points
is fitted by re-weighted least squares (Huber), as in the streaming script of Depth Anything 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64

from worldsystem_core.geometry.pinhole import pointmap_from_depth
from worldsystem_core.geometry.sim3 import Sim3
from worldsystem_slam3r.da3.network import SeenView

_ROUNDS = 5
_SAMPLES = 4000
_LEAST_CONFIDENCE = 0.3
_HUBER_SHARE = 0.02
_LEAST_MATCHES = 50


@dataclass(frozen=True)
class Placement:
    """Where a window lies, and how well the shared pictures agree, as a share of distance."""

    world_from_window: Sim3
    disagreement: float


def points_of(view: SeenView) -> Float64[np.ndarray, "h w 3"]:
    """The view's points in its window's frame; NaN where unknown."""
    points = pointmap_from_depth(view.depth, view.camera).astype(np.float64)
    return Sim3.from_pose(view.window_from_cam).apply(points)


def place_window(
    shared: list[tuple[SeenView, SeenView, Sim3]],
) -> Placement | None:
    """The similarity that lays a window over the one before it; None where nothing agrees.

    `shared` are pictures that both have seen: as the new window sees it, as the old one did, and
    where the old one lies.
    """
    new, world, weights, distances = _matches(shared)
    if len(new) < _LEAST_MATCHES:
        return None
    weight = weights
    placed = Sim3.identity()
    for _ in range(_ROUNDS):
        placed = _weighted_fit(world, new, weight)
        residual = np.linalg.norm(placed.apply(new) - world, axis=1) / distances
        weight = weights * np.minimum(1, _HUBER_SHARE / np.maximum(residual, 1e-9))
    if not np.isfinite(placed.scale) or placed.scale <= 0:
        return None
    return Placement(placed, float(np.median(residual)))


def _matches(
    shared: list[tuple[SeenView, SeenView, Sim3]],
) -> tuple[
    Float64[np.ndarray, "n 3"],
    Float64[np.ndarray, "n 3"],
    Float32[np.ndarray, "n"],
    Float64[np.ndarray, "n"],
]:
    new, world, weights, distances = [], [], [], []
    for now, before, world_from_old in shared:
        trust = np.minimum(now.confidence, before.confidence)
        known = np.nonzero((trust > _LEAST_CONFIDENCE) & (now.depth > 0) & (before.depth > 0))
        step = max(1, len(known[0]) * len(shared) // _SAMPLES)
        chosen = known[0][::step], known[1][::step]
        new.append(points_of(now)[chosen])
        old = points_of(before)[chosen]
        world.append(world_from_old.apply(old))
        weights.append(trust[chosen])
        centre = world_from_old.apply(before.window_from_cam[:3, 3])
        distances.append(np.linalg.norm(world[-1] - centre, axis=1))
    if not new:
        none = np.zeros((0, 3))
        return none, none, np.zeros(0, np.float32), np.zeros(0)
    joined = [np.concatenate(parts) for parts in (new, world, weights, distances)]
    return joined[0], joined[1], joined[2].astype(np.float32), np.maximum(joined[3], 1e-9)


def _weighted_fit(
    a: Float64[np.ndarray, "n 3"], b: Float64[np.ndarray, "n 3"], weight: Float32[np.ndarray, "n"]
) -> Sim3:
    """Least-squares `a_from_b` of weighted matches (Umeyama, 1991)."""
    share = weight.astype(np.float64) / max(float(weight.sum()), 1e-12)
    mean_a, mean_b = share @ a, share @ b
    away_a, away_b = a - mean_a, b - mean_b
    u, singular, vt = np.linalg.svd((away_a * share[:, None]).T @ away_b)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt)) or 1.0])
    rotation = (u * sign) @ vt
    scale = float((singular * sign).sum() / max(float(share @ (away_b**2).sum(axis=1)), 1e-20))
    return Sim3(scale, rotation, mean_a - scale * rotation @ mean_b)
