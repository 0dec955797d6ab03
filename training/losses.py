# SPDX-License-Identifier: Apache-2.0
"""The losses of the papers: regression of points, weighted by a confidence that is learned along.

Wang et al., "DUSt3R: Geometric 3D Vision Made Easy", CVPR 2024 (equations 3 and 4), as SLAM3R
(Liu et al., CVPR 2025) uses them: normalised predictions for Image-to-Points, plain ones for
Local-to-World, whose scale is given by its references.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

CONFIDENCE_WEIGHT = 0.2


def confident_regression(
    points: Float[Tensor, "b v h w 3"],
    confidence: Float[Tensor, "b v h w"],
    truth: Float[Tensor, "b v h w 3"],
    valid: Bool[Tensor, "b v h w"],
    *,
    normalise: bool,
) -> Float[Tensor, ""]:
    """Mean of `confidence · distance − 0.2 · log(confidence)` over valid pixels.

    `truth` is in units of its mean distance; with `normalise`, `points` of each window are brought
    to the same unit first. Without any valid pixel the loss is zero.
    """
    if normalise:
        points = points / mean_distance(points, valid)[:, None, None, None, None]
    distance = (points - truth).norm(dim=-1)
    each = confidence * distance - CONFIDENCE_WEIGHT * torch.log(confidence)
    return torch.where(valid, each, 0.0).sum() / valid.sum().clamp(min=1)


def mean_distance(
    points: Float[Tensor, "b v h w 3"], valid: Bool[Tensor, "b v h w"]
) -> Float[Tensor, "b"]:
    """Mean distance of each window's valid points from its origin, at least 1e-8."""
    norms = torch.where(valid, points.norm(dim=-1), 0.0)
    return (norms.flatten(1).sum(1) / (valid.flatten(1).sum(1) + 1e-8)).clamp(min=1e-8)


def relative_error(
    points: Float[Tensor, "b v h w 3"],
    truth: Float[Tensor, "b v h w 3"],
    valid: Bool[Tensor, "b v h w"],
    *,
    normalise: bool,
) -> float:
    """Mean distance between predicted and true points, in units of the true mean distance."""
    if normalise:
        points = points / mean_distance(points, valid)[:, None, None, None, None]
    distance = torch.where(valid, (points - truth).norm(dim=-1), 0.0)
    return float(distance.sum() / valid.sum().clamp(min=1))
