# SPDX-License-Identifier: Apache-2.0
"""What a network must beat: one depth for every pixel, the best there is on the training rooms."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from losses import mean_distance
from torch import Tensor


def constant_depth_points(
    own: Float[Tensor, "b v h w 3"], valid: Bool[Tensor, "b v h w"]
) -> Float[Tensor, "h w 3"]:
    """The pointmap of a plane across the view: per pixel the median ray, at one depth.

    Fitted to `own` (true points of many views in their own cameras' frames), so the prediction is
    the best constant depth for the median field of view.
    """
    z = own[..., 2:3].clamp(min=1e-6)
    rays = torch.where(valid[..., None], own / z, torch.nan).flatten(0, 1)
    median_ray = torch.nanmedian(rays, dim=0).values
    seen = median_ray.isfinite().all(dim=-1)
    median_ray = torch.where(seen[..., None], median_ray, torch.tensor([0.0, 0.0, 1.0]))
    depth = own[..., 2][valid].median()
    return median_ray * depth


def constant_prediction(
    plane: Float[Tensor, "h w 3"], valid: Bool[Tensor, "b v h w"]
) -> Float[Tensor, "b v h w 3"]:
    """`plane` for every view, as if no camera moved, in units of its mean distance."""
    points = plane.expand(*valid.shape, 3)
    return points / mean_distance(points, valid)[:, None, None, None, None]
