# SPDX-License-Identifier: Apache-2.0
"""What a network must beat: guesses that need no network."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from losses import mean_distance
from torch import Tensor
from windows import Views

from worldsystem_core.geometry.sim3 import fit_sim3


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


def as_a_reference(views: Views, references: int, which: int) -> Float[Tensor, "b v h w 3"]:
    """Sources placed, with their true points, where and as large as reference `which` is.

    The first `references` views are left as they are given. The place follows exactly from that
    view's points in both frames, which Local-to-World is shown.
    """
    points = views.points.clone()
    for window in range(len(points)):
        seen = views.valid[window, which]
        given = [
            x[window, which][seen].numpy().astype(np.float64) for x in (views.points, views.own)
        ]
        own = views.own[window, references:]
        if len(given[0]) < 3:
            points[window, references:] = own
            continue
        placed = fit_sim3(*given).apply(own.numpy().astype(np.float64))
        points[window, references:] = torch.from_numpy(placed.astype(np.float32))
    return points


def as_the_best_reference(views: Views, references: int) -> Float[Tensor, "b v h w 3"]:
    """Each source as the reference that suits it best; which that is, only the truth can tell."""
    guesses = torch.stack([as_a_reference(views, references, i) for i in range(references)])
    away = torch.where(views.valid, (guesses - views.points).norm(dim=-1), 0.0).sum(dim=(-1, -2))
    best = away.argmin(dim=0)
    return guesses.gather(0, best[None, ..., None, None, None].expand(1, *views.points.shape))[0]
