# SPDX-License-Identifier: Apache-2.0
"""How far off the networks are in rooms they never saw, beside untrained ones and plain guesses."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from baselines import (
    as_a_reference,
    as_the_best_reference,
    constant_depth_points,
    constant_prediction,
)
from decoding import Seen
from losses import mean_distance, relative_error
from scipy.stats import spearmanr
from steps import REFERENCES, encode_views, overlaps, predict_window, predict_world
from torch import Tensor
from windows import Clip, Views, reference_windows, world_windows

from worldsystem_slam3r.model.i2p import ImageToPoints
from worldsystem_slam3r.model.l2w import LocalToWorld

_WINDOWS = 12
_BATCH = 4
_VIEWS = 5
_JUDGED_PIXELS = 4000


@torch.inference_mode()
def held_out_errors(
    i2p: ImageToPoints, l2w: LocalToWorld, unseen: list[Clip], known: list[Clip]
) -> dict[str, float]:
    """Mean point errors in `unseen` rooms, in units of the mean distance, and rank correlations.

    Image-to-Points must beat `i2p_constant_depth`, fitted to the `known` rooms. Local-to-World, on
    its sources, must beat `l2w_unmoved` (each stands where the window's origin is, with its true
    points) and `l2w_first_reference` (each stands where the first reference does);
    `l2w_best_reference` is a mark that takes the truth to reach: the reference nearest in effect.
    """
    fresh_i2p, fresh_l2w = ImageToPoints(i2p.sizes), LocalToWorld(l2w.sizes)
    examples = next(_windows(known, 1))
    plane = constant_depth_points(examples.own, examples.valid)
    return {
        "i2p": _mean(_window_error(predict_window(i2p, v), v) for v in _windows(unseen)),
        "i2p_own_view": _mean(_first_error(predict_window(i2p, v), v) for v in _windows(unseen)),
        "i2p_untrained": _mean(
            _window_error(predict_window(fresh_i2p, v), v) for v in _windows(unseen)
        ),
        "i2p_constant_depth": _mean(
            relative_error(constant_prediction(plane, v.valid), v.points, v.valid, normalise=True)
            for v in _windows(unseen)
        ),
        "i2p_known_rooms": _mean(_window_error(predict_window(i2p, v), v) for v in _windows(known)),
        "i2p_confidence_rank": _mean(
            _confidence_rank(predict_window(i2p, v), v, normalise=True) for v in _windows(unseen)
        ),
        "l2w": _mean(_source_error(predict_world(l2w, i2p, v).points, v) for v in _worlds(unseen)),
        "l2w_untrained": _mean(
            _source_error(predict_world(fresh_l2w, i2p, v).points, v) for v in _worlds(unseen)
        ),
        "l2w_unmoved": _mean(_source_error(v.own, v) for v in _worlds(unseen)),
        "l2w_first_reference": _mean(
            _source_error(as_a_reference(v, REFERENCES, 0), v) for v in _worlds(unseen)
        ),
        "l2w_best_reference": _mean(
            _source_error(as_the_best_reference(v, REFERENCES), v) for v in _worlds(unseen)
        ),
        "l2w_known_rooms": _mean(
            _source_error(predict_world(l2w, i2p, v).points, v) for v in _worlds(known)
        ),
        "l2w_confidence_rank": _mean(
            _confidence_rank(predict_world(l2w, i2p, v), v, normalise=False)
            for v in _worlds(unseen)
        ),
        "retrieval_rank": _mean(_retrieval_rank(i2p, v) for v in _worlds(unseen, 10)),
    }


def _windows(clips: list[Clip], count: int = _WINDOWS) -> Iterator[Views]:
    rng = np.random.default_rng(7)
    for _ in range(count):
        yield reference_windows(clips, rng, batch=_BATCH, views=_VIEWS)


def _worlds(clips: list[Clip], views: int = _VIEWS + 1) -> Iterator[Views]:
    rng = np.random.default_rng(8)
    for _ in range(_WINDOWS):
        yield world_windows(clips, rng, batch=_BATCH, views=views)


def _window_error(seen: Seen, views: Views) -> float:
    return relative_error(seen.points, views.points, views.valid, normalise=True)


def _first_error(seen: Seen, views: Views) -> float:
    """Of the window's own view alone, at its own scale."""
    return relative_error(seen.points[:, :1], views.own[:, :1], views.valid[:, :1], normalise=True)


def _source_error(points: Tensor, views: Views) -> float:
    truth, valid = views.points[:, REFERENCES:], views.valid[:, REFERENCES:]
    return relative_error(points[:, REFERENCES:], truth, valid, normalise=False)


def _confidence_rank(seen: Seen, views: Views, *, normalise: bool) -> float:
    """Rank correlation of confidence and nearness to the truth, over pixels of all windows."""
    points, valid = seen.points, views.valid
    if normalise:
        points = points / mean_distance(points, valid)[:, None, None, None, None]
    away = (points - views.points).norm(dim=-1)[valid]
    every = max(1, len(away) // _JUDGED_PIXELS)
    sure = seen.confidence[valid][::every].numpy()
    return float(spearmanr(sure, -away[::every].numpy()).statistic) if sure.std() > 0 else 0.0


def _retrieval_rank(net: ImageToPoints, views: Views) -> float:
    """Rank correlation of the scores and the overlap of candidates with a view."""
    tokens, grid = encode_views(net, views)
    found = []
    for window, overlap in zip(tokens, overlaps(views), strict=True):
        queries = net.start_views(window[None, :1], grid, reference=True)
        candidates = net.start_views(window[None, 1:], grid, reference=False)
        scores = net.token_scores(queries, candidates, grid).mean(dim=(0, 2))
        if overlap.std() > 0 and scores.std() > 0:
            found.append(float(spearmanr(scores.numpy(), overlap.numpy()).statistic))
    return float(np.mean(found)) if found else 0.0


def _mean(values: Iterator[float]) -> float:
    return round(float(np.mean(list(values))), 4)
