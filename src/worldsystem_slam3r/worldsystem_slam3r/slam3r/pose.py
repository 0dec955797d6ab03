# SPDX-License-Identifier: Apache-2.0
"""A camera's pose from its points in its own frame and in the world: similarity, then pixels."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float64

from worldsystem_core.frames import Camera
from worldsystem_core.geometry.se3 import inverse, pose_from, transform
from worldsystem_core.geometry.sim3 import Sim3

INLIER_WIDTHS = 0.018
"""A point agrees when it lies within this share of the picture's width: 4 px of 224."""
AGREEING_DEPTHS = 0.1
_FEWEST = 12
_SIM3_ROUNDS = 6
_BOUNDS = (8.0, 4.0, 2.0, 1.0, 1.0, 1.0, 1.0)
_CONVERGED = 1e-7
_POOR_SHARE = 0.4
_PATCHES = 196
"""Points of one 16 px patch come from one token: they count as one measurement."""


@dataclass(frozen=True, eq=False)
class Sample:
    """n pixels of a frame with their points in the camera frame and in the scene, and a weight."""

    uv: Float64[np.ndarray, "n 2"]
    local: Float64[np.ndarray, "n 3"]
    scene: Float64[np.ndarray, "n 3"]
    weight: Float64[np.ndarray, "n"]

    def __len__(self) -> int:
        return len(self.uv)


@dataclass(frozen=True, eq=False)
class Placement:
    """Where a camera stands, and how far that is to be trusted.

    `inlier_share` are the points that project onto their own pixels, `agreement` those whose own
    and scene geometry match, `scale` the scene units of one local unit. `covariance` is that of
    (position [scene units], rotation [rad]) about the scene's axes.
    """

    scene_from_cam: Float64[np.ndarray, "4 4"]
    inlier_share: float
    agreement: float
    scale: float
    error_px: float
    covariance: Float64[np.ndarray, "6 6"]


def weighted_sim3(
    points_a: Float[np.ndarray, "n 3"],
    points_b: Float[np.ndarray, "n 3"],
    weight: Float[np.ndarray, "n"],
) -> Sim3:
    """Weighted least-squares `a_from_b` of matched points (Umeyama)."""
    share = weight / weight.sum()
    mean_a, mean_b = share @ points_a, share @ points_b
    centred_a, centred_b = points_a - mean_a, points_b - mean_b
    u, singular, vt = np.linalg.svd((centred_a * share[:, None]).T @ centred_b)
    sign = np.ones(3)
    sign[2] = np.sign(np.linalg.det(u) * np.linalg.det(vt)) or 1.0
    rotation = (u * sign) @ vt
    variance_b = float(share @ (centred_b**2).sum(axis=1))
    scale = float((singular * sign).sum() / variance_b) if variance_b > 0 else 1.0
    return Sim3(scale, rotation, mean_a - scale * rotation @ mean_b)


def robust_sim3(sample: Sample) -> tuple[Sim3, float] | None:
    """`scene_from_local` and the weighted share of points that agree with it.

    Points that disagree lose their weight round by round. None with fewer than 12 points, or
    where all lie in one place.
    """
    if len(sample) < _FEWEST or not np.ptp(sample.local, axis=0).any():
        return None
    weight = sample.weight
    for _ in range(_SIM3_ROUNDS):
        fit = weighted_sim3(sample.scene, sample.local, weight)
        distance = np.linalg.norm(fit.apply(sample.local) - sample.scene, axis=1)
        spread = max(1.5 * float(np.median(distance)), 1e-9)
        weight = sample.weight / (1.0 + (distance / spread) ** 2)
    reach = np.linalg.norm(sample.scene - fit.translation, axis=1)
    agreeing = distance < AGREEING_DEPTHS * reach
    if not np.isfinite(fit.scale) or fit.scale <= 0:
        return None
    return fit, float(sample.weight[agreeing].sum() / sample.weight.sum())


def place(sample: Sample, camera: Camera) -> Placement | None:
    """The camera's pose in the scene; None when its points do not give one.

    The similarity between its own points and those in the scene is the first guess, which is then
    refined on pixels; when few agree, a search without a guess is tried.
    """
    found = robust_sim3(sample)
    if found is None:
        return None
    fit, agreement = found
    near_px = INLIER_WIDTHS * camera.width
    cam_from_scene = _refined(
        inverse(pose_from(fit.rotation, fit.translation)), sample, camera, near_px
    )
    error = error_px(cam_from_scene, sample, camera)
    if (error < near_px).mean() < _POOR_SHARE:
        searched = _searched(sample, camera, near_px)
        other = None if searched is None else error_px(searched, sample, camera)
        if other is not None and (other < near_px).sum() > (error < near_px).sum():
            assert searched is not None
            cam_from_scene, error = searched, other
    inliers = error < near_px
    rms_px = float(np.sqrt((error[inliers] ** 2).mean())) if inliers.any() else np.inf
    return Placement(
        scene_from_cam=inverse(cam_from_scene),
        inlier_share=float(sample.weight[inliers].sum() / sample.weight.sum()),
        agreement=agreement,
        scale=fit.scale,
        error_px=rms_px,
        covariance=_covariance(cam_from_scene, sample.scene[inliers], camera, rms_px),
    )


def error_px(
    cam_from_scene: Float[np.ndarray, "4 4"], sample: Sample, camera: Camera
) -> Float64[np.ndarray, "n"]:
    """Distance of each point's projection from its own pixel; behind the camera it is infinite."""
    residual = _residual_px(transform(cam_from_scene, sample.scene), sample.uv, camera)
    return np.asarray(np.hypot(*residual.T))


def _refined(
    cam_from_scene: np.ndarray, sample: Sample, camera: Camera, near_px: float
) -> Float64[np.ndarray, "4 4"]:
    """Gauss–Newton on the pixels of the points that agree, the bound narrowing to `near_px`."""
    for bound in _BOUNDS:
        points = transform(cam_from_scene, sample.scene)
        residual = _residual_px(points, sample.uv, camera)
        inliers = np.hypot(*residual.T) < bound * near_px
        if inliers.sum() < _FEWEST:
            return cam_from_scene
        J = _jacobian(points[inliers], camera)
        step = np.linalg.lstsq(J.T @ J, -J.T @ residual[inliers].T.ravel(), rcond=1e-12)[0]
        turned = pose_from(cv2.Rodrigues(step[3:])[0], step[:3]) @ cam_from_scene
        if not np.isfinite(turned).all():
            return cam_from_scene
        cam_from_scene = turned
        if np.abs(step).max() < _CONVERGED and bound == _BOUNDS[-1]:
            break
    return cam_from_scene


def _residual_px(
    points_cam: Float64[np.ndarray, "n 3"], uv: Float64[np.ndarray, "n 2"], camera: Camera
) -> Float64[np.ndarray, "n 2"]:
    """Projection minus pixel; infinite for points behind the camera."""
    ahead = points_cam[:, 2:] > 1e-9
    rays = points_cam[:, :2] / np.where(ahead, points_cam[:, 2:], 1.0)
    projected = rays * [camera.fx, camera.fy] + [camera.cx, camera.cy]
    return np.where(ahead, projected - uv, np.inf)


def _jacobian(points_cam: Float64[np.ndarray, "n 3"], camera: Camera) -> Float64[np.ndarray, "m 6"]:
    """Derivative of all u, then all v, by a shift and a turn of the camera's frame."""
    x, y, z = points_cam.T
    zero = np.zeros_like(z)
    du = np.stack([camera.fx / z, zero, -camera.fx * x / z**2], axis=1)
    dv = np.stack([zero, camera.fy / z, -camera.fy * y / z**2], axis=1)
    # A turn ω moves p by ω × p, so its columns are p × (du or dv).
    rows = [np.hstack([d, np.cross(points_cam, d)]) for d in (du, dv)]
    return np.concatenate(rows)


def _searched(sample: Sample, camera: Camera, near_px: float) -> Float64[np.ndarray, "4 4"] | None:
    try:
        found, rotation, translation, chosen = cv2.solvePnPRansac(
            sample.scene,
            sample.uv,
            camera.K,
            None,
            iterationsCount=100,
            reprojectionError=near_px,
            flags=cv2.SOLVEPNP_AP3P,
        )
    except cv2.error:  # its final fit throws when the agreeing points coincide
        return None
    if not found or chosen is None or len(chosen) < _FEWEST:
        return None
    rough = pose_from(cv2.Rodrigues(rotation)[0], translation.ravel())
    return _refined(rough, sample, camera, near_px) if np.isfinite(rough).all() else None


def _covariance(
    cam_from_scene: np.ndarray, points: np.ndarray, camera: Camera, rms_px: float
) -> Float64[np.ndarray, "6 6"]:
    """First-order covariance of the pixel fit, turned to the scene's axes."""
    if len(points) < _FEWEST:
        return np.full((6, 6), np.inf)
    J = _jacobian(transform(cam_from_scene, points), camera)
    variance_px = max(rms_px, 0.05) ** 2 * max(1.0, len(points) / _PATCHES)
    cov = np.linalg.pinv(J.T @ J) * variance_px
    turn = np.kron(np.eye(2), cam_from_scene[:3, :3].T)
    return np.asarray(turn @ cov @ turn.T)


def known_points(
    local: Float[np.ndarray, "n 3"], scene: Float[np.ndarray, "n 3"]
) -> Bool[np.ndarray, "n"]:
    """Where both maps have a point: (0, 0, 0) stands for none."""
    known = (local != 0).any(axis=1) & (scene != 0).any(axis=1)
    return np.asarray(known & np.isfinite(local).all(axis=1) & np.isfinite(scene).all(axis=1))
