# SPDX-License-Identifier: Apache-2.0
"""Image-to-points: several pictures in, a point map of each in one picture's camera frame out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worldsystem_slam3r.model.attention import Mlp
from worldsystem_slam3r.model.decoder import Side, TwoSidedDecoder
from worldsystem_slam3r.model.encoder import EncoderBlock, PatchEmbed
from worldsystem_slam3r.model.rope import grid_rotation
from worldsystem_slam3r.model.sizes import NetworkSizes


class ImageToPoints(TwoSidedDecoder):
    """The encoder that all networks share, the window decoder, and the retrieval scorer.

    Parameter names are those of the published checkpoints.
    """

    def __init__(self, sizes: NetworkSizes) -> None:
        super().__init__(sizes)
        self.patch_embed = PatchEmbed(sizes)
        self.enc_blocks = nn.ModuleList(EncoderBlock(sizes) for _ in range(sizes.encoder_depth))
        # the one norm whose epsilon is torch's own, 1e-5
        self.corr_score_norm = nn.LayerNorm(sizes.decoder_dim)
        self.corr_score_proj = Mlp(sizes.decoder_dim, sizes.decoder_dim, 1)

    def encode(self, images: Tensor) -> Tensor:
        """Raw tokens (n, tokens, encoder dim) of images (n, 3, h, w) in [-1, 1].

        They are what is kept per frame: each network applies its own `enc_norm`.
        """
        patch = self.sizes.patch_px
        grid = (images.shape[2] // patch, images.shape[3] // patch)
        head_dim = self.sizes.encoder_dim // self.sizes.encoder_heads
        tables = grid_rotation(grid, head_dim, self.sizes.rope_base, images.device)
        x: Tensor = self.patch_embed(images)
        for block in self.enc_blocks:
            x = block(x, tables)
        return x

    def start_views(self, tokens: Tensor, grid: tuple[int, int], *, reference: bool) -> Side:
        """Block 0's own part of raw tokens (batch, views, tokens, encoder dim)."""
        return self.start(self.embed(tokens), grid, reference=reference)

    def token_scores(self, queries: Side, candidates: Side, grid: tuple[int, int]) -> Tensor:
        """(queries, candidates, tokens) scores above 1 of how well a candidate serves a query.

        `queries` is a reference side of one view per batch entry, `candidates` a source side of
        batch 1. A query's own tokens are pooled over all candidates in block 0, so that scores
        depend on the whole set.
        """
        shared = candidates.spread(queries.target.stream.shape[0])
        r, s = self.first_meeting(queries, shared)
        _, of_candidates = self.blocks(1)
        s = of_candidates(s, r, self.decoder_tables(grid))
        with torch.autocast(s.device.type, enabled=False):
            logits: Tensor = self.corr_score_proj(self.corr_score_norm(s.float()))
            return 1.0 + logits.squeeze(-1).exp()
