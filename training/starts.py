# SPDX-License-Identifier: Apache-2.0
"""What a network begins with: the decoder changes little, so that the head reads what goes in.

A short training cannot afford to find out first what is known before. So Image-to-Points begins
with the points straight ahead, and Local-to-World gives back the points that it is given.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldsystem_slam3r.model.decoder import CrossAttention, MultiviewBlock, TwoSidedDecoder
from worldsystem_slam3r.model.heads import PointHead
from worldsystem_slam3r.model.l2w import LocalToWorld

_BRANCH_SCALE = 0.2
_HEAD_SCALE = 0.3
_COPY_BRANCH_SCALE = 0.1
_LOUDNESS = 3.0
"""Points against pictures in the stream: with 3 a copy is off by 0.11, with 1 by 0.16."""
_RIDGE = 1e-3
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


@torch.no_grad()
def begin_as_a_copy(
    net: LocalToWorld,
    tokens: Float[Tensor, "b v t d"],
    points: Float[Tensor, "b v h w 3"],
) -> None:
    """Let the first decoder channels carry the points' smooth part in each patch; heads read it.

    The heads are fitted to `points`, by least squares, through all that lies between but the
    decoder's branches, which are made weaker still.
    """
    waves = _waves(net.sizes.patch_px, net.sizes.decoder_dim // 12)
    carried = 3 * len(waves)
    for block in (*net.mv_dec_blocks1, *net.mv_dec_blocks2):
        assert isinstance(block, MultiviewBlock)
        for layer in (block.attn.proj, block.cross_attn.proj, block.mlp.fc2):
            layer.weight.mul_(_COPY_BRANCH_SCALE)
        # what is alike is found by the picture: the two sides' points are in different frames
        block.cross_attn.projq.weight[:, :carried] = 0.0
        block.cross_attn.projk.weight[:, :carried] = 0.0
    embedder = net.ponit_embedder
    nn.init.zeros_(embedder.weight)
    assert embedder.bias is not None
    nn.init.zeros_(embedder.bias)
    for axis in range(3):
        first = axis * len(waves)
        embedder.weight[first : first + len(waves), axis] = waves / net.sizes.decoder_depth
    net.decoder_embed.weight[:carried] = 0.0
    net.decoder_embed.bias[:carried] = 0.0
    seen = net.dec_norm(net.embed(tokens) + net.sizes.decoder_depth * net.pointmap_tokens(points))
    head = net.downstream_head1
    _fit_head(head, seen.flatten(0, 2), _patches(points, net.sizes.patch_px))
    same_heads(net)


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


def _waves(patch_px: int, most: int) -> Float[Tensor, "k p p"]:
    """Weights that take the mean of a patch and its lowest cosines, up to order 3 in all."""
    place = (torch.arange(patch_px) + 0.5) / patch_px
    cosines = [torch.cos(math.pi * order * place) for order in range(4)]
    orders = [(y, total - y) for total in range(4) for y in range(total + 1)][: max(1, most)]
    waves = torch.stack([torch.outer(cosines[y], cosines[x]) for y, x in orders])
    return _LOUDNESS * waves / patch_px**2


def _patches(points: Float[Tensor, "b v h w 3"], patch_px: int) -> Float[Tensor, "n c"]:
    """Points in the head's own measure (length d as log(1 + d)), one row a patch."""
    length = points.norm(dim=-1, keepdim=True)
    raw = (points / length.clamp(min=1e-8) * torch.log1p(length)).flatten(0, 1)
    shuffled = nn.functional.pixel_unshuffle(raw.permute(0, 3, 1, 2), patch_px)
    return shuffled.flatten(2).transpose(1, 2).flatten(0, 1)


def _fit_head(head: PointHead, seen: Float[Tensor, "n d"], wanted: Float[Tensor, "n c"]) -> None:
    """Least squares with a slight pull towards zero; confidence is left as it is."""
    mean_seen, mean_wanted = seen.mean(dim=0), wanted.mean(dim=0)
    centred = seen - mean_seen
    square = centred.T @ centred + _RIDGE * len(seen) * torch.eye(seen.shape[1], device=seen.device)
    weight = torch.linalg.solve(square, centred.T @ (wanted - mean_wanted)).T
    head.proj.weight[: len(weight)] = weight
    head.proj.bias[: len(weight)] = mean_wanted - weight @ mean_seen
