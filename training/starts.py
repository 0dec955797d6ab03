# SPDX-License-Identifier: Apache-2.0
"""What a network begins with: the decoder changes little, so that the head reads what goes in.

A short training cannot afford to find out first what is known before. So Image-to-Points begins
with the points straight ahead, and Local-to-World with what Image-to-Points has learned, and gives
back the points that it is given.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from steps import encode_views
from torch import Tensor, nn
from windows import Views

from worldsystem_slam3r.model.decoder import CrossAttention, MultiviewBlock, TwoSidedDecoder
from worldsystem_slam3r.model.heads import PointHead
from worldsystem_slam3r.model.i2p import ImageToPoints
from worldsystem_slam3r.model.l2w import LocalToWorld

_BRANCH_SCALE = 0.2
_HEAD_SCALE = 0.3
_LOUDNESS = 4.0
"""Size of the points against that of the tokens which they are added to."""
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
def begin_from(net: LocalToWorld, other: ImageToPoints, views: Views, references: int) -> None:
    """Take over a trained decoder, which finds the way between two views, and show it points.

    The points' smooth part in each patch enters along the directions in which the decoder's tokens
    hardly differ, so that little of what it knows is disturbed. The heads are then fitted by least
    squares: of the references to where they are, of the sources to where they are given. `views`
    should be of many rooms: fitted to few cameras, the heads are wrong for all others.
    """
    learned = other.state_dict()
    net.load_state_dict({key: learned.get(key, value) for key, value in net.state_dict().items()})
    tokens, grid = encode_views(other, views)
    dim, waves = net.sizes.decoder_dim, _waves(net.sizes.patch_px, net.sizes.decoder_dim // 12)
    stream = net.embed(tokens).flatten(0, 2)
    carriers = _LOUDNESS * stream.std() * _quietest(stream, 3 * len(waves))
    carriers = carriers.reshape(dim, len(waves), 3)
    entering = torch.einsum("dka,kyx->dayx", carriers, waves.to(carriers.device))
    assert net.ponit_embedder.bias is not None
    net.ponit_embedder.weight.copy_(entering / net.sizes.decoder_depth)
    net.ponit_embedder.bias.zero_()
    known, own = views.points[:, :references], views.own[:, references:]
    reference = net.start_views(tokens[:, :references], known, reference=True)
    sources = net.start_views(tokens[:, references:], own, reference=False)
    r, s = net.decode(reference, sources, grid, want_ref=True, want_src=True)
    assert r is not None
    assert s is not None
    _fit_head(net.downstream_head1, r, known)
    _fit_head(net.downstream_head2, s, own)


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
    return waves / patch_px**2


def _quietest(tokens: Float[Tensor, "n d"], count: int) -> Float[Tensor, "d k"]:
    """Orthogonal directions along which tokens differ least, and which a norm does not take out."""
    centred = tokens - tokens.mean(dim=0)
    spread = centred.T @ centred
    directions: Tensor = torch.linalg.eigh(spread + spread.trace()).eigenvectors
    return directions[:, :count]


def _fit_head(
    head: PointHead, tokens: Float[Tensor, "b v t d"], points: Float[Tensor, "b v h w 3"]
) -> None:
    """Least squares with a slight pull towards zero; confidence is left as it is."""
    seen, wanted = tokens.flatten(0, 2), _patches(points, head.patch_px)
    mean_seen, mean_wanted = seen.mean(dim=0), wanted.mean(dim=0)
    centred = seen - mean_seen
    square = centred.T @ centred + _RIDGE * len(seen) * torch.eye(seen.shape[1], device=seen.device)
    weight = torch.linalg.solve(square, centred.T @ (wanted - mean_wanted)).T
    head.proj.weight[: len(weight)] = weight
    head.proj.bias[: len(weight)] = mean_wanted - weight @ mean_seen


def _patches(points: Float[Tensor, "b v h w 3"], patch_px: int) -> Float[Tensor, "n c"]:
    """Points in the head's own measure (length d as log(1 + d)), one row a patch."""
    length = points.norm(dim=-1, keepdim=True)
    raw = (points / length.clamp(min=1e-8) * torch.log1p(length)).flatten(0, 1)
    shuffled = nn.functional.pixel_unshuffle(raw.permute(0, 3, 1, 2), patch_px)
    return shuffled.flatten(2).transpose(1, 2).flatten(0, 1)
