# SPDX-License-Identifier: Apache-2.0
"""The start: two pictures' relative pose and first points, only when the camera really moved."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float64

from worldsystem_core.geometry.se3 import pose_from

MIN_MATCHES = 50
MIN_ANGLE_RAD = np.deg2rad(1.5)
MIN_SHARE = 0.5
"""Share of the matches that a motion must explain."""
EPIPOLAR_PX = 1.0
TWO_VIEW_PX = 2.5


@dataclass(frozen=True, eq=False)
class TwoViews:
    """Second camera from first (unit median depth in the first), and the points that fit.

    `points` are in the first camera's frame; rows that `good` does not mark mean nothing. `wide`
    says whether they are seen under an angle wide enough to begin with.
    """

    second_from_first: Float64[np.ndarray, "4 4"]
    points: Float64[np.ndarray, "n 3"]
    good: Bool[np.ndarray, "n"]
    wide: bool = True


def rays(
    uv: Float64[np.ndarray, "n 2"], K4: Float64[np.ndarray, "4"]
) -> Float64[np.ndarray, "n 3"]:
    """Camera-frame directions with z = 1 of pixels; K4 is (fx, fy, cx, cy)."""
    xy = (uv - K4[2:]) / K4[:2]
    return np.column_stack([xy, np.ones(len(xy))])


def flow_beyond_rotation_px(
    uv_a: Float64[np.ndarray, "n 2"], uv_b: Float64[np.ndarray, "n 2"], K4: Float64[np.ndarray, "4"]
) -> float:
    """Median displacement [px] that the best rotation leaves: 0 for a turning or resting camera.

    The rotation is the weighted orthogonal Procrustes fit of the rays, reweighted so that the
    parts that move on their own count little.
    """
    return float(np.median(_fitted_turn(uv_a, uv_b, K4)[1]))


def _fitted_turn(
    uv_a: np.ndarray, uv_b: np.ndarray, K4: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The rotation that explains two pictures best, and what it leaves of each match [px]."""
    a, b = rays(uv_a, K4), rays(uv_b, K4)
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    unit_b = b / np.linalg.norm(b, axis=1, keepdims=True)
    weight = np.ones(len(a))
    error, rotation = weight, np.eye(3)
    for _ in range(8):
        u, _, vt = np.linalg.svd((unit_b * weight[:, None]).T @ a)
        rotation = (u * np.array([1.0, 1.0, np.linalg.det(u) * np.linalg.det(vt)])) @ vt
        turned = a @ rotation.T
        z = np.maximum(turned[:, 2:], 1e-3)
        error = np.linalg.norm((turned[:, :2] / z - b[:, :2]) * K4[:2], axis=1)
        weight = 1.0 / np.maximum(error, 0.5)
    return rotation, error


def triangulate(
    cam_a_from_world: Float64[np.ndarray, "n 4 4"],
    cam_b_from_world: Float64[np.ndarray, "n 4 4"],
    rays_a: Float64[np.ndarray, "n 3"],
    rays_b: Float64[np.ndarray, "n 3"],
) -> tuple[Float64[np.ndarray, "n 3"], Float64[np.ndarray, "n"]]:
    """World points nearest to pairs of rays (midpoint), and the angle between the rays [rad].

    Points behind either camera, or of parallel rays, are NaN.
    """
    Ra, Rb = cam_a_from_world[:, :3, :3], cam_b_from_world[:, :3, :3]
    centre_a = -np.einsum("nji,nj->ni", Ra, cam_a_from_world[:, :3, 3])
    centre_b = -np.einsum("nji,nj->ni", Rb, cam_b_from_world[:, :3, 3])
    da, db = np.einsum("nji,nj->ni", Ra, rays_a), np.einsum("nji,nj->ni", Rb, rays_b)
    da /= np.linalg.norm(da, axis=1, keepdims=True)
    db /= np.linalg.norm(db, axis=1, keepdims=True)
    between = centre_b - centre_a
    cosine = np.einsum("ni,ni->n", da, db)
    along_a, along_b = np.einsum("ni,ni->n", between, da), np.einsum("ni,ni->n", between, db)
    sine2 = np.maximum(1.0 - cosine**2, 1e-12)
    sa = (along_a - along_b * cosine) / sine2
    sb = (along_a * cosine - along_b) / sine2
    points = 0.5 * (centre_a + sa[:, None] * da + centre_b + sb[:, None] * db)
    angle = np.linalg.norm(np.cross(da, db), axis=1)
    points[(sa <= 0) | (sb <= 0) | (angle < 1e-5)] = np.nan
    return points, np.arcsin(np.minimum(angle, 1.0))


def two_views(
    uv_a: Float64[np.ndarray, "n 2"], uv_b: Float64[np.ndarray, "n 2"], K4: Float64[np.ndarray, "4"]
) -> list[TwoViews]:
    """Possible relative poses of two pictures, best supported first; empty when none is sound.

    Candidates come from the essential matrix (Nistér, IEEE TPAMI 2004) and, where much of the
    scene is a plane, from its homography (Malis and Vargas, INRIA RR-6303, 2007): two pictures of a
    plane admit two motions, which only a third picture tells apart. Flight straight ahead and back
    is among them too, since the others miss it where it shows little. A candidate is sound when
    enough points agree and lie before both cameras; those that are not `wide` are told as well,
    for they may be the truth that a wrong one of wide angle must not be taken for.
    """
    if len(uv_a) < MIN_MATCHES:
        return []
    K = np.array([[K4[0], 0, K4[2]], [0, K4[1], K4[3]], [0, 0, 1.0]])
    cv2.setRNGSeed(0)
    motions = _essential_motions(uv_a, uv_b, K) + _homography_motions(uv_a, uv_b, K)
    turn = _fitted_turn(uv_a, uv_b, K4)[0]
    motions += [pose_from(turn, np.array([0.0, 0.0, ahead])) for ahead in (-1.0, 1.0)]
    views = [_judged(motion, uv_a, uv_b, K4) for motion in motions]
    return sorted((v for v in views if v is not None), key=lambda v: -int(v.good.sum()))


def _essential_motions(uv_a: np.ndarray, uv_b: np.ndarray, K: np.ndarray) -> list[np.ndarray]:
    E, chosen = cv2.findEssentialMat(
        uv_a, uv_b, K, method=cv2.USAC_MAGSAC, prob=0.9999, threshold=EPIPOLAR_PX
    )
    if E is None or E.shape != (3, 3) or chosen is None or chosen.sum() < 8:
        return []
    inlier = chosen.ravel().astype(bool)
    _, R, t, _ = cv2.recoverPose(E, uv_a[inlier], uv_b[inlier], K)
    return [pose_from(R, t.ravel())]


def _homography_motions(uv_a: np.ndarray, uv_b: np.ndarray, K: np.ndarray) -> list[np.ndarray]:
    H, chosen = cv2.findHomography(uv_a, uv_b, cv2.USAC_MAGSAC, 2.0 * EPIPOLAR_PX)
    if H is None or chosen is None or chosen.sum() < 0.4 * len(uv_a):
        return []
    _, rotations, translations, _ = cv2.decomposeHomographyMat(H, K)
    return [
        pose_from(R, t.ravel() / np.linalg.norm(t))
        for R, t in zip(rotations, translations, strict=True)
        if np.linalg.norm(t) > 1e-6
    ]


def _judged(
    pose: np.ndarray, uv_a: np.ndarray, uv_b: np.ndarray, K4: np.ndarray
) -> TwoViews | None:
    """The points that a motion explains, or None when they are too few or too poorly seen."""
    n = len(uv_a)
    first, second = np.broadcast_to(np.eye(4), (n, 4, 4)), np.broadcast_to(pose, (n, 4, 4))
    points, angle = triangulate(first, second, rays(uv_a, K4), rays(uv_b, K4))
    cam = points @ pose[:3, :3].T + pose[:3, 3]
    with np.errstate(invalid="ignore", divide="ignore"):
        error_a = np.linalg.norm(points[:, :2] / points[:, 2:] * K4[:2] + K4[2:] - uv_a, axis=1)
        error_b = np.linalg.norm(cam[:, :2] / cam[:, 2:] * K4[:2] + K4[2:] - uv_b, axis=1)
        good = (points[:, 2] > 0) & (cam[:, 2] > 0) & (np.maximum(error_a, error_b) < TWO_VIEW_PX)
    if good.sum() < max(MIN_MATCHES, MIN_SHARE * n):
        return None
    unit = float(np.median(points[good, 2]))
    scaled = pose.copy()
    scaled[:3, 3] /= unit
    wide = bool(np.median(angle[good]) >= MIN_ANGLE_RAD)
    return TwoViews(scaled, points / unit, good, wide)
