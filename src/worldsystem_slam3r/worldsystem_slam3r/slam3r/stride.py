# SPDX-License-Identifier: Apache-2.0
"""The key-frame stride of a whole video: the one whose windows the network trusts most."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from worldsystem_slam3r.slam3r.networks import Networks

_RADIUS = 3
_WINDOWS = 10


def window_around(index: int, radius: int, stride: int, count: int) -> list[int]:
    """`index` first, then its neighbours before and after it, nearest first, inside the video."""
    around = [index + side * i * stride for i in range(1, radius + 1) for side in (-1, 1)]
    return [index, *[i for i in around if 0 <= i < count]]


def stride_of_video(
    networks: Networks,
    tokens_of: Callable[[Sequence[int]], Float[Tensor, "v s d"]],
    count: int,
    rng: np.random.RandomState,
    *,
    strides: range,
    scores: list[float] | None = None,
) -> int:
    """Choose the stride with the highest mean confidence over sampled windows of seven frames.

    The smallest of equals wins; a video of `count` < 7 frames gives 1. The score of each stride
    tried is appended to `scores`.
    """
    best, best_score = 1, 0.0
    for stride in strides:
        if stride > (count - 1) // (2 * _RADIUS):
            break
        first, after = _RADIUS * stride, count - _RADIUS * stride
        amount = min(after - first, _WINDOWS)
        sampled = rng.choice(np.arange(first, after), amount, replace=False)
        score = _mean_confidence(networks, tokens_of, sampled.tolist(), stride, count)
        if scores is not None:
            scores.append(score)
        if score > best_score:
            best, best_score = stride, score
    return best


def _mean_confidence(
    networks: Networks,
    tokens_of: Callable[[Sequence[int]], Float[Tensor, "v s d"]],
    sampled: list[int],
    stride: int,
    count: int,
) -> float:
    means = []
    for index in sampled:
        tokens = tokens_of(window_around(index, _RADIUS, stride, count))
        means.append(networks.i2p(tokens, 0)[1].mean())
    return float(torch.stack(means).mean())
