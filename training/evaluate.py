# SPDX-License-Identifier: Apache-2.0
"""How far off the networks are in rooms they never saw, beside untrained ones and a flat guess."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from baselines import constant_depth_points, constant_prediction
from losses import relative_error
from scipy.stats import spearmanr
from steps import REFERENCES, encode_views, overlaps, predict_window, predict_world
from windows import Clip, Views, film_rooms, reference_windows, world_windows

from worldsystem_slam3r.model.i2p import ImageToPoints
from worldsystem_slam3r.model.l2w import LocalToWorld

_WINDOWS = 12
_BATCH = 4
_VIEWS = 5


def held_out_errors(
    i2p: ImageToPoints, l2w: LocalToWorld, seeds: range, known: list[Clip], *, size_px: int
) -> dict[str, float]:
    """Mean point errors in units of the mean distance; the flat guess is fitted to `known` rooms.

    `l2w_flat` puts every source view where the first reference is, by its true points.
    """
    unseen = film_rooms(seeds, 60, size_px)
    fresh_i2p, fresh_l2w = ImageToPoints(i2p.sizes), LocalToWorld(l2w.sizes)
    examples = next(_windows(known, 1))
    plane = constant_depth_points(examples.own, examples.valid)
    with torch.inference_mode():
        return {
            "i2p": _mean(_window_error(i2p, v) for v in _windows(unseen)),
            "i2p_untrained": _mean(_window_error(fresh_i2p, v) for v in _windows(unseen)),
            "i2p_constant_depth": _mean(_flat_error(plane, v) for v in _windows(unseen)),
            "l2w": _mean(_world_error(l2w, i2p, v) for v in _worlds(unseen)),
            "l2w_untrained": _mean(_world_error(fresh_l2w, i2p, v) for v in _worlds(unseen)),
            "l2w_flat": _mean(_unmoved_error(v) for v in _worlds(unseen)),
            "retrieval_rank_correlation": _mean(_rank(i2p, v) for v in _worlds(unseen, 10)),
        }


def _windows(clips: list[Clip], count: int = _WINDOWS) -> Iterator[Views]:
    rng = np.random.default_rng(7)
    for _ in range(count):
        yield reference_windows(clips, rng, batch=_BATCH, views=_VIEWS)


def _worlds(clips: list[Clip], views: int = _VIEWS + 1) -> Iterator[Views]:
    rng = np.random.default_rng(8)
    for _ in range(_WINDOWS):
        yield world_windows(clips, rng, batch=_BATCH, views=views)


def _window_error(net: ImageToPoints, views: Views) -> float:
    points = predict_window(net, views).points
    return relative_error(points, views.points, views.valid, normalise=True)


def _flat_error(plane: torch.Tensor, views: Views) -> float:
    guess = constant_prediction(plane, views.valid)
    return relative_error(guess, views.points, views.valid, normalise=True)


def _world_error(net: LocalToWorld, encoder: ImageToPoints, views: Views) -> float:
    points = predict_world(net, encoder, views).points[:, REFERENCES:]
    truth, valid = views.points[:, REFERENCES:], views.valid[:, REFERENCES:]
    return relative_error(points, truth, valid, normalise=False)


def _unmoved_error(views: Views) -> float:
    truth, valid = views.points[:, REFERENCES:], views.valid[:, REFERENCES:]
    return relative_error(views.own[:, REFERENCES:], truth, valid, normalise=False)


def _rank(net: ImageToPoints, views: Views) -> float:
    tokens, grid = encode_views(net, views)
    found = []
    for window, overlap in zip(tokens, overlaps(views), strict=True):
        queries = net.start_views(window[None, :1], grid, reference=True)
        candidates = net.start_views(window[None, 1:], grid, reference=False)
        scores = net.token_scores(queries, candidates, grid).mean(dim=(0, 2))
        if overlap.std() > 0:
            found.append(float(spearmanr(scores.numpy(), overlap.numpy()).statistic))
    return float(np.nanmean(found)) if found else float("nan")


def _mean(values: Iterator[float]) -> float:
    return float(np.mean(list(values)))
