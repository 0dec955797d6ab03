# SPDX-License-Identifier: Apache-2.0
"""Gaussians as ellipses on a camera's picture (EWA splatting, Zwicker et al., 2001)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64

from worldsystem_core.frames import Camera
from worldsystem_core.geometry.se3 import inverse
from worldsystem_core.splats.gaussians import Gaussians, matrices_of

BLUR_PX2 = 0.3
"""Variance that every ellipse gains, as in 3DGS, so that it never falls between two pixels."""
CUTOFF_SIGMAS = 3.0
LEAST_ALPHA = 1.0 / 255.0
MOST_ALPHA = 0.99
_NEAR = 1e-3
_VIEW_MARGIN = 1.3


@dataclass(frozen=True, eq=False)
class Ellipses:
    """What is before the camera, nearest first; `number` says which Gaussian each is.

    An ellipse's weight at an offset d [px] from its centre is exp(-(a dx² + 2 b dx dy + c dy²)/2).
    """

    number: Int64[np.ndarray, "m"]
    centre_px: Float32[np.ndarray, "m 2"]
    inverse_px2: Float32[np.ndarray, "m 3"]
    reach_px: Float32[np.ndarray, "m 2"]
    alpha: Float32[np.ndarray, "m"]
    rgb: Float32[np.ndarray, "m 3"]
    depth: Float32[np.ndarray, "m"]


def ellipses(
    gaussians: Gaussians, world_from_cam: Float64[np.ndarray, "4 4"], camera: Camera
) -> Ellipses:
    """Project `gaussians` (world) into `camera`; what lies outside the picture is left out.

    Blurring leaves the opacity as it is: making the widened ellipse fainter, as is right for a
    lone Gaussian, lets the background through a closed surface (measured: -3 to -6 dB). Nothing
    nearer than a thousandth of a unit is drawn.
    """
    cam_from_world = inverse(world_from_cam).astype(np.float32)
    points = gaussians.means @ cam_from_world[:3, :3].T + cam_from_world[:3, 3]
    z = points[:, 2]
    ahead = np.nonzero(z > _NEAR)[0]
    points, z = points[ahead], z[ahead]
    centre = points[:, :2] / z[:, None] * np.array([camera.fx, camera.fy], np.float32)
    centre += np.array([camera.cx, camera.cy], np.float32)
    covariance = _covariance_px2(gaussians, ahead, points, cam_from_world, camera)
    reach = CUTOFF_SIGMAS * np.sqrt(covariance[:, [0, 2]])
    alpha = gaussians.opacities[ahead]
    low, high = centre - reach, centre + reach
    seen = (alpha > LEAST_ALPHA) & (high > -0.5).all(axis=1)
    seen &= (low[:, 0] < camera.width - 0.5) & (low[:, 1] < camera.height - 0.5)
    chosen = np.nonzero(seen)[0]
    chosen = chosen[np.argsort(z[chosen], kind="stable")]
    a, b, c = covariance[chosen].T
    determinant = a * c - b * b
    return Ellipses(
        ahead[chosen],
        np.ascontiguousarray(centre[chosen]),
        np.stack([c, -b, a], axis=-1) / determinant[:, None],
        np.ascontiguousarray(reach[chosen]),
        alpha[chosen],
        np.ascontiguousarray(gaussians.rgb[ahead[chosen]]),
        z[chosen],
    )


def _covariance_px2(
    gaussians: Gaussians,
    ahead: Int64[np.ndarray, "m"],
    points_cam: Float32[np.ndarray, "m 3"],
    cam_from_world: Float32[np.ndarray, "4 4"],
    camera: Camera,
) -> Float32[np.ndarray, "m 3"]:
    """Variances (xx, xy, yy) on the picture [px²]."""
    x, y, z = points_cam.T
    slope_x = np.clip(x / z, *_slopes(camera.width, camera.fx, camera.cx))
    slope_y = np.clip(y / z, *_slopes(camera.height, camera.fy, camera.cy))
    jacobian = np.zeros((len(z), 2, 3), np.float32)
    jacobian[:, 0, 0], jacobian[:, 0, 2] = camera.fx / z, -camera.fx * slope_x / z
    jacobian[:, 1, 1], jacobian[:, 1, 2] = camera.fy / z, -camera.fy * slope_y / z
    axes = cam_from_world[:3, :3] @ matrices_of(gaussians.rotations[ahead])
    spread = jacobian @ (axes * gaussians.scales[ahead][:, None, :])
    xx = np.sum(spread[:, 0] ** 2, axis=-1)
    yy = np.sum(spread[:, 1] ** 2, axis=-1)
    xy = np.sum(spread[:, 0] * spread[:, 1], axis=-1)
    found = np.stack([xx + BLUR_PX2, xy, yy + BLUR_PX2], axis=-1)
    return found.astype(np.float32)


def _slopes(size: int, f: float, c: float) -> tuple[float, float]:
    """Where the linearised projection still makes sense: a little beyond the picture's edges."""
    return _VIEW_MARGIN * (-0.5 - c) / f, _VIEW_MARGIN * (size - 0.5 - c) / f
