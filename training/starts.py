# SPDX-License-Identifier: Apache-2.0
"""What a network begins with: the decoder changes little, so that the head reads what goes in.

A short training cannot afford to find out first that a view looks like a view. So Image-to-Points
begins as a guess of each view's own depth, and Local-to-World as a copy of the points it is given.
"""

from __future__ import annotations

import torch
from torch import nn

from worldsystem_slam3r.model.decoder import CrossAttention, MultiviewBlock, TwoSidedDecoder
from worldsystem_slam3r.model.heads import PointHead

_BRANCH_SCALE = 0.2
_HEAD_SCALE = 0.3
_START_DEPTH = 0.6
"""In the head's own measure: a depth of expm1(0.6) = 0.8 mean distances."""


@torch.no_grad()
def begin_gently(net: TwoSidedDecoder) -> None:
    """Decoder tokens are the encoder's (same width), branches weak, and every point straight ahead.

    Cross-attention looks for what is alike: queries and keys are one and the same rotation.
    """
    if net.sizes.encoder_dim == net.sizes.decoder_dim:
        nn.init.eye_(net.decoder_embed.weight)
        nn.init.zeros_(net.decoder_embed.bias)
    for block in (*net.mv_dec_blocks1, *net.mv_dec_blocks2):
        assert isinstance(block, MultiviewBlock)
        for layer in (block.attn.proj, block.cross_attn.proj, block.mlp.fc2):
            layer.weight.mul_(_BRANCH_SCALE)
            nn.init.zeros_(layer.bias)
        _look_for_what_is_alike(block.cross_attn)
    for head in (net.downstream_head1, net.downstream_head2):
        _point_ahead(head)


def same_heads(net: TwoSidedDecoder) -> None:
    """Give the sources' head what the references' has learned."""
    net.downstream_head2.load_state_dict(net.downstream_head1.state_dict())


def _look_for_what_is_alike(attention: CrossAttention) -> None:
    nn.init.orthogonal_(attention.projq.weight)
    attention.projk.weight.copy_(attention.projq.weight)
    nn.init.zeros_(attention.projq.bias)
    nn.init.zeros_(attention.projk.bias)


def _point_ahead(head: PointHead) -> None:
    head.proj.weight.mul_(_HEAD_SCALE)
    x, y, z, confidence = head.proj.bias.view(4, -1)
    for channel, value in ((x, 0.0), (y, 0.0), (z, _START_DEPTH), (confidence, -1.0)):
        channel.fill_(value)
