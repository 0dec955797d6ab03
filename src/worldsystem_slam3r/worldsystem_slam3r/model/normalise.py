# SPDX-License-Identifier: Apache-2.0
"""The scale that point maps are divided by before they enter a network."""

from __future__ import annotations

import torch
from torch import Tensor


def mean_distance(pointmaps: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean distance to the origin over all views given: a scalar tensor, at least 1e-8.

    `pointmaps` is (views, h, w, 3); only points where `valid` (views, h, w) is true count, all of
    them without it. No valid point at all gives 1e-8.
    """
    distance: Tensor = torch.linalg.vector_norm(pointmaps, dim=-1)
    if valid is None:
        valid = torch.ones_like(distance, dtype=torch.bool)
    total = torch.where(valid, distance, torch.zeros_like(distance)).sum()
    return (total / (valid.sum() + 1e-8)).clamp(min=1e-8)
