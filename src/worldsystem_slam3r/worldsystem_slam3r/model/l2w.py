# SPDX-License-Identifier: Apache-2.0
"""Local-to-world: point maps of new views moved into the frame and scale of known views."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worldsystem_slam3r.model.decoder import Side, TwoSidedDecoder
from worldsystem_slam3r.model.encoder import PatchEmbed
from worldsystem_slam3r.model.sizes import NetworkSizes


class LocalToWorld(TwoSidedDecoder):
    """Registers source views, given in their own camera frames, to reference views.

    Parameter names are those of the published checkpoints, `ponit_embedder` included; like there,
    it has no encoder, and its `patch_embed` is loaded but never used.
    """

    def __init__(self, sizes: NetworkSizes) -> None:
        super().__init__(sizes)
        self.patch_embed = PatchEmbed(sizes)
        self.void_pe_token = nn.Parameter(torch.zeros(1, 1, sizes.decoder_dim))
        patch = sizes.patch_px
        self.ponit_embedder = nn.Conv2d(3, sizes.decoder_dim, patch, stride=patch)

    def pointmap_tokens(self, pointmaps: Tensor, patch_mask: Tensor | None = None) -> Tensor:
        """(batch, views, tokens, dim) of point maps (batch, views, h, w, 3), in float32.

        Unknown points are (0, 0, 0). Patches where `patch_mask` (batch, views, rows, columns) is
        true get the learned token for "nothing known" instead.
        """
        with torch.autocast(pointmaps.device.type, enabled=False):
            channels = pointmaps.float().flatten(0, 1).permute(0, 3, 1, 2)
            patches: Tensor = self.ponit_embedder(channels)
        flat = patches.flatten(2).transpose(1, 2)
        tokens = flat.reshape(*pointmaps.shape[:2], *flat.shape[1:])
        if patch_mask is None:
            return tokens
        return torch.where(patch_mask.flatten(2)[..., None], self.void_pe_token[None], tokens)

    def grid_of(self, pointmaps: Tensor) -> tuple[int, int]:
        """Token rows and columns of point maps (batch, views, h, w, 3)."""
        rows, columns = (n // self.sizes.patch_px for n in pointmaps.shape[2:4])
        return rows, columns

    def start_views(
        self,
        tokens: Tensor,
        pointmaps: Tensor,
        *,
        reference: bool,
        patch_mask: Tensor | None = None,
    ) -> Side:
        """Block 0's own part of raw tokens (batch, views, tokens, encoder dim) with points.

        Points are in the world frame for references, in each view's camera frame for sources.
        """
        added = self.pointmap_tokens(pointmaps, patch_mask)
        grid = self.grid_of(pointmaps)
        return self.start(self.embed(tokens), grid, reference=reference, added=added)
