# SPDX-License-Identifier: Apache-2.0
"""One forward pass of each network over a batch of windows, and the loss that trains it."""

from __future__ import annotations

import torch
from decoding import PLAIN, Lesson, Seen, look
from jaxtyping import Float
from losses import regression
from matching import patch_places, seen_patches
from pixels import head_at
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from windows import Views

from worldsystem_slam3r.model.i2p import ImageToPoints
from worldsystem_slam3r.model.l2w import LocalToWorld

REFERENCES = 3
_NOISE = 0.05
_TOKEN_WEIGHT = 0.5


def predict_window(net: ImageToPoints, views: Views, lesson: Lesson = PLAIN) -> Seen:
    """Points and confidence of all views in the camera frame of the first; gradients flow."""
    tokens, grid = encode_views(net, views)
    reference = net.start_views(tokens[:, :1], grid, reference=True)
    sources = net.start_views(tokens[:, 1:], grid, reference=False)
    return look(net, (reference, sources), grid, views, lesson)


def window_loss(net: ImageToPoints, views: Views, lesson: Lesson = PLAIN) -> Float[Tensor, ""]:
    """Image-to-Points: points up to scale, so predictions are normalised."""
    return _loss(predict_window(net, views, lesson), views, lesson, normalise=True)


def own_view_loss(net: ImageToPoints, views: Views, lesson: Lesson = PLAIN) -> Float[Tensor, ""]:
    """Each view's own points from its picture alone: encoder and head, as if no decoder were."""
    tokens, grid = encode_views(net, views)
    stream = net.dec_norm(net.embed(tokens))
    found = head_at(net.downstream_head1, stream, grid, lesson.pixels).points
    truth = views.at(lesson.pixels)
    # every view is a window of its own
    single = (x.flatten(0, 1)[:, None] for x in (found, truth.own, truth.valid))
    return regression(*single, normalise=True)


def predict_world(
    net: LocalToWorld,
    encoder: ImageToPoints,
    views: Views,
    lesson: Lesson = PLAIN,
    *,
    references: int = REFERENCES,
    noise: float = 0.0,
) -> Seen:
    """World points of all views: the first are references, given in the world, the others not.

    `noise` disturbs what is given, as the other network's errors will.
    """
    with torch.no_grad():
        tokens, grid = encode_views(encoder, views)
    known = disturbed(views.points[:, :references], noise)
    own = disturbed(views.own[:, references:], noise)
    reference = net.start_views(tokens[:, :references], known, reference=True)
    sources = net.start_views(tokens[:, references:], own, reference=False)
    return look(net, (reference, sources), grid, views, lesson)


def world_loss(
    net: LocalToWorld,
    encoder: ImageToPoints,
    views: Views,
    lesson: Lesson = PLAIN,
    *,
    references: int = REFERENCES,
) -> Float[Tensor, ""]:
    """Local-to-World: its references give the scale, so predictions are taken as they are."""
    found = predict_world(net, encoder, views, lesson, references=references, noise=_NOISE)
    return _loss(found, views, lesson, normalise=False)


def retrieval_loss(net: ImageToPoints, views: Views) -> Float[Tensor, ""]:
    """Scores of candidates for the first view against how much of it each one sees.

    Each token is asked, too, whether its patch is seen in the first view.
    """
    with torch.no_grad():
        tokens, grid = encode_views(net, views)
    places = patch_places(views, grid)
    shared = seen_patches(places.of(slice(1, None)), places.of(slice(1)))
    errors = []
    for window, overlap, seen in zip(tokens, overlaps(views), shared, strict=True):
        queries = net.start_views(window[None, :1], grid, reference=True)
        candidates = net.start_views(window[None, 1:], grid, reference=False)
        scores = net.token_scores(queries, candidates, grid)
        mean = scores.mean(dim=(0, 2))
        errors.append((((mean - 1.0) / mean - overlap) ** 2).mean())
        logits = (scores[0] - 1.0).clamp(min=1e-6).log()
        errors.append(_TOKEN_WEIGHT * binary_cross_entropy_with_logits(logits, seen.float()))
    return torch.stack(errors).sum() / len(tokens)


def overlaps(views: Views, *, reach: float = 0.1) -> Float[Tensor, "b c"]:
    """Share of the first view's points that have a point of each other view within `reach`."""
    step = max(1, views.points.shape[2] // 14)
    points = views.points[:, :, ::step, ::step].flatten(2, 3)
    valid = views.valid[:, :, ::step, ::step].flatten(2, 3)
    first, others = points[:, :1], points[:, 1:]
    distance = torch.cdist(first.expand_as(others), others)
    distance = distance.masked_fill(~valid[:, 1:, None, :], torch.inf)
    near = (distance.amin(dim=-1) < reach) & valid[:, :1]
    return near.sum(-1) / valid[:, :1].sum(-1).clamp(min=1)


def encode_views(
    net: ImageToPoints, views: Views
) -> tuple[Float[Tensor, "b v s d"], tuple[int, int]]:
    """Raw tokens of every view, and their grid (rows, columns)."""
    batch, count = views.images.shape[:2]
    patch = net.sizes.patch_px
    grid = (views.images.shape[3] // patch, views.images.shape[4] // patch)
    tokens = net.encode(views.images.flatten(0, 1))
    return tokens.view(batch, count, *tokens.shape[1:]), grid


def disturbed(points: Float[Tensor, "b v h w 3"], noise: float) -> Float[Tensor, "b v h w 3"]:
    """`points` with a smooth error of relative size `noise`; unknown points stay at zero."""
    if noise == 0.0:
        return points
    batch, views, height, width, _ = points.shape
    coarse = noise * torch.randn(batch * views, 3, 4, 4, device=points.device)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return points * (1.0 + smooth.permute(0, 2, 3, 1).reshape(points.shape))


def _loss(seen: Seen, views: Views, lesson: Lesson, *, normalise: bool) -> Float[Tensor, ""]:
    truth = views.at(lesson.pixels)
    points = regression(
        seen.points,
        truth.points,
        truth.valid,
        normalise=normalise,
        confidence=seen.confidence if lesson.confident else None,
    )
    return points + lesson.matching * seen.missed if lesson.matching else points
