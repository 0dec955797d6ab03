# SPDX-License-Identifier: Apache-2.0
"""How well candidate views would serve a query view as references."""

from __future__ import annotations

import torch
from torch import Tensor


def candidate_scores(token_scores: Tensor) -> Tensor:
    """(candidates,) scores in [0, 1) of token scores (queries, candidates, tokens) above 1.

    Monotone in the mean over all queries and tokens.
    """
    mean = token_scores.mean(dim=(0, 2))
    return (mean - 1.0) / mean


def best_candidates(scores: Tensor, count: int) -> list[int]:
    """Positions of the `count` highest scores, best first; all in their order if there are fewer.

    The positions index the candidates as given, not frames.
    """
    if count >= len(scores):
        return list(range(len(scores)))
    order: list[int] = torch.argsort(scores, descending=True)[:count].tolist()
    return order
