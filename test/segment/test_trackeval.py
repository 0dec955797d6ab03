# SPDX-License-Identifier: Apache-2.0
"""Our tracking scores against TrackEval's, the program that HOTA was published with."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import tracking_scores as scores

trackeval = pytest.importorskip("trackeval", reason="a peer of tests; `make test` installs it")


def _random_film(seed: int, frames: int = 30):
    """Squares that wander, seen with wrong sizes, gaps, inventions and changes of id."""
    random = np.random.default_rng(seed)
    truths, given = [], []
    names = {n: n for n in range(1, 7)}
    for frame in range(frames):
        truth, label = np.zeros((60, 90), np.int64), np.zeros((60, 90), np.int64)
        for n in range(1, 7):
            x, y = 4 + 28 * ((n - 1) % 3) + int(3 * np.sin(frame + n)), 4 + 28 * ((n - 1) // 3)
            if random.random() > 0.15:
                truth[y : y + 16, x : x + 16] = n
            if random.random() < 0.06:
                names[n] = int(random.integers(10, 40))
            if random.random() > 0.2:
                shift = int(random.integers(0, 9))
                label[y + shift // 2 : y + 16, x + shift : x + 16 + shift // 2] = names[n]
        if random.random() < 0.3:
            label[50:58, 70:80] = 60 + frame % 3
        truths.append(truth)
        given.append(label)
    return scores.sequence_of(truths, given, 1)


def _as_trackeval(sequence: scores.Sequence) -> dict:
    truth_count, given_count = sequence.shape
    return {
        "num_timesteps": len(sequence.truth),
        "num_gt_ids": truth_count,
        "num_tracker_ids": given_count,
        "num_gt_dets": sum(map(len, sequence.truth)),
        "num_tracker_dets": sum(map(len, sequence.given)),
        "gt_ids": sequence.truth,
        "tracker_ids": sequence.given,
        "similarity_scores": sequence.iou,
    }


@pytest.mark.parametrize("seed", range(4))
def test_hota_idf1_and_switches_are_trackevals(seed) -> None:
    sequence = _random_film(seed)
    data = _as_trackeval(sequence)
    hota = trackeval.metrics.HOTA().eval_sequence(data)
    identity = trackeval.metrics.Identity({"PRINT_CONFIG": False}).eval_sequence(data)
    clear = trackeval.metrics.CLEAR({"PRINT_CONFIG": False}).eval_sequence(data)
    assert scores.hota(sequence) == pytest.approx(float(np.mean(hota["HOTA"])), abs=1e-9)
    assert scores.idf1(sequence) == pytest.approx(float(identity["IDF1"]), abs=1e-9)
    assert scores.id_switches(sequence) == int(clear["IDSW"])
