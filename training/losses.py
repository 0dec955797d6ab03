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

CONFIDENCE_WEIGHT = 1.0
"""The best confidence is this over the error. The papers' 0.2 suits errors of a few hundredths;
with larger ones the least confidence there is would be the best everywhere, and tell nothing."""


def regression(
    points: Float[Tensor, "b v h w 3"],
    truth: Float[Tensor, "b v h w 3"],
    valid: Bool[Tensor, "b v h w"],
    *,
    normalise: bool,
    confidence: Float[Tensor, "b v h w"] | None = None,
) -> Float[Tensor, ""]:
    """Mean distance over valid pixels, or of `confidence · distance − a · log(confidence)`.

    `truth` is in units of its mean distance; with `normalise`, `points` of each window are brought
    to the same unit first. Without any valid pixel the loss is zero.
    """
    if normalise:
        points = points / mean_distance(points, valid)[:, None, None, None, None]
    each = (points - truth).norm(dim=-1)
    if confidence is not None:
        each = confidence * each - CONFIDENCE_WEIGHT * torch.log(confidence)
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
    return float(regression(points, truth, valid, normalise=normalise))
