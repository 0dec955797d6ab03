# SPDX-License-Identifier: Apache-2.0
"""The image encoder: patches to tokens, then a plain transformer over one picture."""

from __future__ import annotations

from torch import Tensor, nn

from worldsystem_slam3r.model.attention import LayerNorm, Mlp, SelfAttention, add_to
from worldsystem_slam3r.model.rope import Rotation
from worldsystem_slam3r.model.sizes import NetworkSizes


class PatchEmbed(nn.Module):
    """One token per square patch, row by row."""

    def __init__(self, sizes: NetworkSizes) -> None:
        super().__init__()
        patch = sizes.patch_px
        self.proj = nn.Conv2d(3, sizes.encoder_dim, patch, stride=patch)

    def forward(self, images: Tensor) -> Tensor:
        tokens: Tensor = self.proj(images)
        return tokens.flatten(2).transpose(1, 2)


class EncoderBlock(nn.Module):
    """Self-attention and feed-forward, each behind a norm and added to the stream."""

    def __init__(self, sizes: NetworkSizes) -> None:
        super().__init__()
        dim = sizes.encoder_dim
        self.norm1 = LayerNorm(dim)
        self.attn = SelfAttention(dim, sizes.encoder_heads)
        self.norm2 = LayerNorm(dim)
        self.mlp = Mlp(dim, sizes.mlp_ratio * dim)

    def forward(self, x: Tensor, tables: Rotation) -> Tensor:
        x = add_to(x, self.attn(self.norm1(x), tables))
        return add_to(x, self.mlp(self.norm2(x)))
