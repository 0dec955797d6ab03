# SPDX-License-Identifier: Apache-2.0
"""For `refine` and programs of one's own (no stage calls it): draws Gaussians with gradients.

`gsplat` does on a GPU, and so does its plain twin in torch. Positions, sizes and rotations are
fixed; pictures depend on colours and opacities.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64

from worldsystem_core.errors import MissingDependency
from worldsystem_core.frames import Camera
from worldsystem_core.geometry.se3 import inverse
from worldsystem_core.splats.gaussians import Gaussians
from worldsystem_core.splats.projection import BLUR_PX2, CUTOFF_SIGMAS, MOST_ALPHA, ellipses

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Viewpoint:
    """Where a picture is taken from."""

    world_from_cam: Float64[np.ndarray, "4 4"]
    camera: Camera


Render = Callable[["torch.Tensor", "torch.Tensor", Viewpoint], "torch.Tensor"]
"""(rgb (n, 3), opacities (n)) and a viewpoint → (h, w, 4): premultiplied sRGB and alpha."""


def gsplat_renderer(gaussians: Gaussians) -> Render:
    """Draws on the GPU; `MissingDependency` without `gsplat`."""
    if importlib.util.find_spec("gsplat") is None:
        raise MissingDependency("gsplat", "drawing splats on the GPU", "pip install gsplat")
    import torch
    from gsplat import rasterization

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).float().cuda()

    means, rotations = tensor(gaussians.means), tensor(gaussians.rotations)
    scales = tensor(gaussians.scales)

    def render(rgb: torch.Tensor, opacities: torch.Tensor, viewpoint: Viewpoint) -> torch.Tensor:
        camera = viewpoint.camera
        picture, alpha, _ = rasterization(
            means,
            rotations,
            scales,
            opacities,
            rgb,
            tensor(inverse(viewpoint.world_from_cam))[None],
            # gsplat's pixel centres lie at halves, ours at whole numbers
            tensor(camera.K + np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]]))[None],
            camera.width,
            camera.height,
            near_plane=1e-3,
            eps2d=BLUR_PX2,
        )
        return torch.cat([picture[0], alpha[0]], dim=-1)

    return render


def plain_renderer(gaussians: Gaussians) -> Render:
    """The twin: every Gaussian at every pixel, for small sets and pictures."""
    import torch

    def render(rgb: torch.Tensor, opacities: torch.Tensor, viewpoint: Viewpoint) -> torch.Tensor:
        camera = viewpoint.camera
        seen = ellipses(gaussians, viewpoint.world_from_cam, camera)
        v, u = np.mgrid[0 : camera.height, 0 : camera.width].reshape(2, -1)
        dx = u[None] - seen.centre_px[:, :1]
        dy = v[None] - seen.centre_px[:, 1:]
        a, b, c = seen.inverse_px2.T[..., None]
        power = a * dx * dx + 2 * b * dx * dy + c * dy * dy
        falloff = np.where(power > CUTOFF_SIGMAS**2, 0, np.exp(-0.5 * power)).astype(np.float32)
        number = torch.from_numpy(seen.number)
        alpha = (opacities[number, None] * torch.from_numpy(falloff)).clamp(max=MOST_ALPHA)
        before = torch.cumprod(torch.cat([torch.ones_like(alpha[:1]), 1 - alpha]), dim=0)
        share = (before[:-1] * alpha).T
        picture = torch.cat([share @ rgb[number], share.sum(dim=1, keepdim=True)], dim=1)
        return picture.reshape(camera.height, camera.width, 4)

    return render
