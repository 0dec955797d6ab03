# SPDX-License-Identifier: Apache-2.0
"""Cross-attention is taught where to look: at the patch of the other view that shows the place.

Which that is, the true points tell. The networks have to find it out in any case; told directly, it
takes a fraction of the steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from windows import Views

_REACH = 0.12
"""Patches whose mean points are closer show the same place, in units of the mean distance."""
_LEAST_KNOWN = 0.3


@dataclass(frozen=True, eq=False)
class Places:
    """Mean point of each patch, and whether enough of its pixels have one."""

    points: Float[Tensor, "b v t 3"]
    known: Bool[Tensor, "b v t"]

    def of(self, views: slice) -> Places:
        """Those of some views."""
        return Places(self.points[:, views], self.known[:, views])


def patch_places(views: Views, grid: tuple[int, int]) -> Places:
    """Where the patches of all views lie, in the frame of the windows."""
    b, v, height, width, _ = views.points.shape
    rows, columns = grid
    inside = (height // rows, width // columns)
    points = views.points.view(b, v, rows, inside[0], columns, inside[1], 3)
    valid = views.valid.view(b, v, rows, inside[0], columns, inside[1], 1)
    known = valid.float().mean(dim=(3, 5)).flatten(2, 3)
    mean = (points * valid).mean(dim=(3, 5)).flatten(2, 3) / known.clamp(min=1e-6)
    return Places(mean, known.squeeze(-1) > _LEAST_KNOWN)


def seen_patches(of: Places, in_view: Places) -> Bool[Tensor, "b v t"]:
    """Which patches of views show a place that the one other view shows too."""
    away = torch.cdist(of.points, in_view.points.expand(-1, of.points.shape[1], -1, -1))
    away = away.masked_fill(~in_view.known[:, :, None, :], torch.inf)
    return (away.amin(dim=-1) < _REACH) & of.known


def matching_loss(
    queries: Float[Tensor, "b q heads t d"],
    keys: Float[Tensor, "b k heads t d"],
    of_queries: Places,
    of_keys: Places,
) -> Float[Tensor, ""]:
    """Cross-entropy of the first half of the heads' attention against where the places are.

    Only query patches count that a key view sees; without any the loss is zero.
    """
    taught = max(1, queries.shape[2] // 2)
    q, k = queries[:, :, :taught].float(), keys[:, :, :taught].float()
    logits = torch.einsum("bqhid,bkhjd->bqkhij", q, k) / math.sqrt(q.shape[-1])
    away = torch.cdist(of_queries.points[:, :, None], of_keys.points[:, None])
    away = away.masked_fill(~of_keys.known[:, None, :, None], 1e3)
    seen = (away.amin(dim=-1) < _REACH) & of_queries.known[:, :, None]
    target = torch.softmax(-((away / (0.6 * _REACH)) ** 2), dim=-1)
    missed = -(target[:, :, :, None] * logits.log_softmax(dim=-1)).sum(dim=-1).mean(dim=3)
    return torch.where(seen, missed, 0.0).sum() / seen.sum().clamp(min=1)
