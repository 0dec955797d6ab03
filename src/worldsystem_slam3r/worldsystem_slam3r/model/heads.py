# SPDX-License-Identifier: Apache-2.0
"""From decoder tokens to points and confidence, always in float32."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from worldsystem_slam3r.model.sizes import NetworkSizes


class PointMap(NamedTuple):
    """Points (..., h, w, 3) in scene units and confidence (..., h, w) above 1."""

    points: Tensor
    confidence: Tensor


def activate(raw_xyz: Tensor, raw_confidence: Tensor) -> PointMap:
    """Turn raw channels into a point map: length d becomes expm1(d), confidence 1 + exp."""
    length = raw_xyz.norm(dim=-1, keepdim=True)
    points = raw_xyz / length.clamp(min=1e-8) * torch.expm1(length)
    return PointMap(points, 1.0 + raw_confidence.exp())


def unshuffle_patches(channels: Tensor, grid: tuple[int, int], patch_px: int) -> Tensor:
    """(n, tokens, c * patch²) to an image (n, c, h, w): channel-major within each token."""
    return functional.pixel_shuffle(
        channels.transpose(1, 2).reshape(len(channels), -1, *grid), patch_px
    )


class PointHead(nn.Module):
    """One linear layer: four channels (x, y, z, confidence) for each pixel of a token's patch."""

    def __init__(self, sizes: NetworkSizes) -> None:
        super().__init__()
        self.patch_px = sizes.patch_px
        self.proj = nn.Linear(sizes.decoder_dim, 4 * sizes.patch_px**2)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> PointMap:
        """Point maps (..., h, w) of decoder tokens (..., tokens, dim)."""
        with torch.autocast(tokens.device.type, enabled=False):
            weight, bias = self.proj.weight.float(), self.proj.bias.float()
            flat = functional.linear(tokens.float().flatten(0, -3), weight, bias)
            image = unshuffle_patches(flat, grid, self.patch_px).permute(0, 2, 3, 1)
            image = image.reshape(*tokens.shape[:-2], *image.shape[1:])
            return activate(image[..., :3], image[..., 3])
