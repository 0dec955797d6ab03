# SPDX-License-Identifier: Apache-2.0
"""Similarity between two cameras from matched points that both of them measured.

Triples of matches give hypotheses (Umeyama, IEEE TPAMI 13(4), 1991) inside RANSAC (Fischler and
Bolles, CACM 24(6), 1981); what agrees is judged in the pictures, both ways, because depth is far
less exact than direction. Then Gauss–Newton on the same errors and
on the ratios of depth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64
from scipy.spatial.transform import Rotation

from worldsystem_core.geometry.sim3 import Sim3

HYPOTHESES = 200
STEPS = 8
SETTLED = 1e-6
"""A step so small [rad, depths] ends the search: most pairs need three."""
DEPTH_SIGMA = 0.04
"""Standard deviation of the logarithm of a depth ratio that counts as much as one pixel."""
HUBER_SIGMAS = 1.5
HUBER = 0.5
"""Share of the inlier limit at which an error stops counting squared."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """n matched points in two cameras: where they are, and where they are seen at depth 1.

    `px` is one pixel at depth 1, in each camera.
    """

    points_a: Float64[np.ndarray, "n 3"]
    points_b: Float64[np.ndarray, "n 3"]
    rays_a: Float64[np.ndarray, "n 2"]
    rays_b: Float64[np.ndarray, "n 2"]
    px_a: float
    px_b: float

    def __len__(self) -> int:
        return len(self.points_a)

    def chosen(self, mask: Bool[np.ndarray, "n"]) -> Pairs:
        """Those that `mask` selects."""
        return Pairs(
            self.points_a[mask],
            self.points_b[mask],
            self.rays_a[mask],
            self.rays_b[mask],
            self.px_a,
            self.px_b,
        )


@dataclass(frozen=True, eq=False)
class Sim3Fit:
    """`a_from_b`, which pairs agree with it, and its covariance (turn, shift, log scale) in b."""

    a_from_b: Sim3
    inliers: Bool[np.ndarray, "n"]
    covariance: Float64[np.ndarray, "7 7"]

    @property
    def inlier_count(self) -> int:
        return int(self.inliers.sum())


def fit_similarity(
    pairs: Pairs, *, limit_px: float, seed: int = 0, hypotheses: int = HYPOTHESES
) -> Sim3Fit | None:
    """The similarity that most pairs agree with; None where fewer than four do."""
    if len(pairs) < 4:
        return None
    rng = np.random.default_rng(seed)
    triples = rng.integers(0, len(pairs), (hypotheses, 3))
    triples = triples[(np.diff(np.sort(triples, axis=1), axis=1) > 0).all(axis=1)]
    scales, rotations, translations = _from_triples(
        pairs.points_a[triples], pairs.points_b[triples]
    )
    errors = _errors_px(pairs, scales, rotations, translations)
    best = int((errors < limit_px).sum(axis=1).argmax())
    rough = Sim3(float(scales[best]), rotations[best], translations[best])
    fit = refine(pairs, rough, errors[best] < limit_px, limit_px=limit_px)
    return fit if fit.inlier_count >= 4 else None


def refine(
    pairs: Pairs, a_from_b: Sim3, inliers: Bool[np.ndarray, "n"], *, limit_px: float
) -> Sim3Fit:
    """Least squares of the errors in both pictures; pairs come and go as they agree."""
    information, depth = np.eye(7), max(float(np.median(pairs.points_b[:, 2])), 1e-9)
    per_depth = np.array([1.0, 1.0, 1.0, 1 / depth, 1 / depth, 1 / depth, 1.0])
    for _ in range(STEPS):
        used = pairs.chosen(inliers)
        if len(used) < 4:
            break
        residual, jacobian = _linearised(used, a_from_b)
        weight = _weights(residual, len(used), limit_px)
        information = jacobian.T @ (jacobian * weight[:, None]) + 1e-9 * np.eye(7)
        step = -np.linalg.solve(information, jacobian.T @ (weight * residual))
        a_from_b = _stepped(a_from_b, step)
        before, inliers = inliers, similarity_errors_px(pairs, a_from_b) < limit_px
        if np.abs(per_depth * step).max() < SETTLED and (inliers == before).all():
            break
    if inliers.sum() < 4:
        return Sim3Fit(a_from_b, np.zeros_like(inliers), np.full((7, 7), np.inf))
    spread = _residual_px(pairs.chosen(inliers), a_from_b)
    return Sim3Fit(a_from_b, inliers, spread**2 * np.linalg.inv(information))


def similarity_errors_px(pairs: Pairs, a_from_b: Sim3) -> Float64[np.ndarray, "n"]:
    """The larger of a pair's two reprojection errors [px]; infinite behind a camera."""
    return np.asarray(
        _errors_px(
            pairs,
            np.array([a_from_b.scale]),
            a_from_b.rotation[None],
            a_from_b.translation[None],
        )[0]
    )


def _from_triples(
    a: Float64[np.ndarray, "k 3 3"], b: Float64[np.ndarray, "k 3 3"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Umeyama for k triples at once (last axis: coordinates)."""
    mean_a, mean_b = a.mean(axis=1, keepdims=True), b.mean(axis=1, keepdims=True)
    centred_a, centred_b = a - mean_a, b - mean_b
    u, singular, vt = np.linalg.svd(centred_a.transpose(0, 2, 1) @ centred_b)
    sign = np.ones_like(singular)
    sign[:, 2] = np.where(np.linalg.det(u) * np.linalg.det(vt) < 0, -1.0, 1.0)
    rotations = (u * sign[:, None, :]) @ vt
    variance = np.maximum((centred_b**2).sum(axis=(1, 2)), 1e-12)
    scales = np.maximum((singular * sign).sum(axis=1), 1e-12) / variance
    moved = np.einsum("kij,kj->ki", rotations, mean_b[:, 0])
    return scales, rotations, mean_a[:, 0] - scales[:, None] * moved


def _errors_px(
    pairs: Pairs, scales: np.ndarray, rotations: np.ndarray, translations: np.ndarray
) -> Float64[np.ndarray, "k n"]:
    """The larger of the two reprojection errors of every pair under k similarities.

    Coordinates lie apart: along an axis of two or three numbers NumPy is slow.
    """
    a_from_b = scales[:, None, None] * rotations
    b_from_a = rotations.transpose(0, 2, 1) / scales[:, None, None]
    back = -np.einsum("kij,kj->ki", b_from_a, translations)
    worst = np.zeros((len(scales), len(pairs)))
    for matrices, shifts, points, rays, px in (
        (a_from_b, translations, pairs.points_b, pairs.rays_a, pairs.px_a),
        (b_from_a, back, pairs.points_a, pairs.rays_b, pairs.px_b),
    ):
        turned = matrices.transpose(1, 0, 2).reshape(-1, 3) @ points.T
        x, y, z = turned.reshape(3, len(scales), len(pairs)) + shifts.T[:, :, None]
        ahead = z > 1e-9
        z[~ahead] = 1.0
        right, down = x / z - rays[:, 0], y / z - rays[:, 1]
        error = np.where(ahead, np.sqrt(right * right + down * down) / px, np.inf)
        np.maximum(worst, error, out=worst)
    return worst


def _linearised(pairs: Pairs, a_from_b: Sim3) -> tuple[np.ndarray, np.ndarray]:
    """Residuals in a, in b [px] and of depth, and derivatives by (turn, shift, log scale) in b."""
    R, s = a_from_b.rotation, a_from_b.scale
    points_b = pairs.points_b
    in_a = a_from_b.apply(points_b)
    back = a_from_b.inverse().apply(pairs.points_a)
    blocks, residuals = [], []
    # a_from_b ∘ exp(ξ): a point p of b goes to p + ω × p + u + λ p first
    for points, rays, px, source, matrix in (
        (in_a, pairs.rays_a, pairs.px_a, points_b, s * R),
        (back, pairs.rays_b, pairs.px_b, back, -np.eye(3)),
    ):
        z = points[:, 2:]
        residuals.append(((points[:, :2] / z - rays) / px).ravel())
        by_point = np.zeros((len(points), 2, 3))
        by_point[:, 0, 0] = by_point[:, 1, 1] = 1.0 / z[:, 0]
        by_point[:, :, 2] = -points[:, :2] / z**2
        by_step = np.zeros((len(points), 3, 7))
        by_step[:, :, :3] = -_cross(source)
        by_step[:, :, 3:6] = np.eye(3)
        by_step[:, :, 6] = source
        blocks.append((by_point / px @ (matrix @ by_step)).reshape(-1, 7))
    depths, by_depth = _depth_rows(pairs, a_from_b)
    return np.concatenate([*residuals, depths]), np.concatenate([*blocks, by_depth])


def _depth_rows(pairs: Pairs, a_from_b: Sim3) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of the depth ratios in a, in standard deviations, and their derivatives.

    Two views from one place show the same pixels at any scale: only depth tells it there.
    """
    in_a = a_from_b.apply(pairs.points_b)
    z = np.maximum(in_a[:, 2], 1e-9)
    residual = np.log(z / pairs.points_a[:, 2]) / DEPTH_SIGMA
    by_step = np.zeros((len(pairs), 3, 7))
    by_step[:, :, :3] = -_cross(pairs.points_b)
    by_step[:, :, 3:6] = np.eye(3)
    by_step[:, :, 6] = pairs.points_b
    along = (a_from_b.scale * a_from_b.rotation @ by_step)[:, 2]
    return residual, along / z[:, None] / DEPTH_SIGMA


def _weights(
    residual: Float64[np.ndarray, "r"], count: int, limit_px: float
) -> Float64[np.ndarray, "r"]:
    """Huber's weights: of pixels by the length of their errors, of depths one by one."""
    pixels, depths = residual[: 4 * count], np.abs(residual[4 * count :])
    size = np.linalg.norm(pixels.reshape(-1, 2), axis=1)
    of_pixels = np.repeat(np.minimum(1.0, HUBER * limit_px / np.maximum(size, 1e-9)), 2)
    return np.concatenate([of_pixels, np.minimum(1.0, HUBER_SIGMAS / np.maximum(depths, 1e-9))])


def _cross(vectors: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n 3 3"]:
    matrices = np.zeros((len(vectors), 3, 3))
    x, y, z = vectors.T
    matrices[:, 0, 1], matrices[:, 0, 2], matrices[:, 1, 2] = -z, y, -x
    matrices[:, 1, 0], matrices[:, 2, 0], matrices[:, 2, 1] = z, -y, x
    return matrices


def _stepped(a_from_b: Sim3, step: Float64[np.ndarray, "7"]) -> Sim3:
    turn = np.asarray(Rotation.from_rotvec(step[:3]).as_matrix())
    return a_from_b @ Sim3(float(np.exp(np.clip(step[6], -0.5, 0.5))), turn, step[3:6])


def _residual_px(pairs: Pairs, a_from_b: Sim3) -> float:
    residual = _linearised(pairs, a_from_b)[0][: 4 * len(pairs)]
    return float(np.sqrt((residual**2).sum() / max(len(residual) - 7, 1)))
