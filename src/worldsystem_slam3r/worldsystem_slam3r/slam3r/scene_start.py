# SPDX-License-Identifier: Apache-2.0
"""The start of a scene: the window's best reference gives the world its frame and its unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from worldsystem_slam3r.slam3r.networks import Networks
from worldsystem_slam3r.slam3r.views import View, mean_distance, trusted

SMALLEST_WINDOW = 3


@dataclass(frozen=True, eq=False)
class SceneStart:
    """Points of w views in the camera frame of view `reference`, and each view's own pointmap."""

    reference: int
    score: float
    points: Float[Tensor, "w h w2 3"]
    confidence: Float[Tensor, "w h w2"]
    own_points: Float[Tensor, "w h w2 3"]
    own_confidence: Float[Tensor, "w h w2"]

    def __len__(self) -> int:
        return len(self.points)


def find_start(
    networks: Networks, tokens: Sequence[Float[Tensor, "s d"]], *, wanted_score: float
) -> SceneStart:
    """Try every view as the reference; shrink the window while the best scores too low.

    The score is the mean confidence of all views; the smallest window is taken as it is.
    """
    while True:
        start = _best_reference(networks, torch.stack(list(tokens)))
        if len(tokens) <= SMALLEST_WINDOW or start.score >= wanted_score:
            return start
        tokens = tokens[:-1]


def _best_reference(networks: Networks, tokens: Float[Tensor, "w s d"]) -> SceneStart:
    results = [_finite(*networks.i2p(tokens, ref)) for ref in range(len(tokens))]
    scores = [float(confidence.mean(dim=(1, 2)).mean()) for _, confidence in results]
    best = max(range(len(scores)), key=scores.__getitem__)
    points, confidence = results[best]
    return SceneStart(
        reference=best,
        score=scores[best],
        points=points,
        confidence=confidence,
        own_points=torch.stack([p[i] for i, (p, _) in enumerate(results)]),
        own_confidence=torch.stack([c[i] for i, (_, c) in enumerate(results)]),
    )


def _finite(
    points: Float[Tensor, "v h w 3"], confidence: Float[Tensor, "v h w"]
) -> tuple[Float[Tensor, "v h w 3"], Float[Tensor, "v h w"]]:
    """Numbers that are none become unknown points of confidence 0."""
    good = torch.isfinite(points).all(dim=-1) & torch.isfinite(confidence)
    return torch.where(good[..., None], points, 0.0), torch.where(good, confidence, 0.0)


def place_start(views: Sequence[View], start: SceneStart, *, local_threshold: float) -> None:
    """Give the start's views their points; the unit is the mean distance of all trusted ones."""
    valid = trusted(start.points, start.confidence, local_threshold)
    scaled = start.points / mean_distance(start.points, valid)
    world = torch.where(valid[..., None], scaled, 0.0)
    for i, view in enumerate(views):
        own_valid = trusted(start.own_points[i], start.own_confidence[i], local_threshold)
        own = start.own_points[i] / mean_distance(start.own_points[i], own_valid)
        view.local_points = torch.where(own_valid[..., None], own, 0.0)
        view.local_confidence = start.own_confidence[i]
        view.local_score = float(view.local_confidence.mean())
        view.world_points = world[i]
        view.world_confidence = start.confidence[i]
        view.world_score = float(view.world_confidence.mean())


def level_confidence(keyframes: Sequence[View], registered: Sequence[View]) -> None:
    """Put the start's confidence, which the other network gave, on the registration's scale."""
    if registered:
        factor = max(v.world_score for v in registered) / max(v.world_score for v in keyframes)
        for view in keyframes:
            view.strengthen(factor)
