# SPDX-License-Identifier: Apache-2.0
"""The benchmark's scores on cases that can be counted by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import tracking_scores as scores


def _pictures(*rows: list[int]) -> list[np.ndarray]:
    # every id fills four pixels of its own
    return [np.repeat(np.array(row, dtype=np.int64), 4)[None, :] for row in rows]


TRUTH = _pictures([1, 2], [1, 2], [1, 2], [1, 2])


def test_perfect_tracking_scores_one() -> None:
    sequence = scores.sequence_of(TRUTH, _pictures(*[[7, 9]] * 4), 1)
    assert scores.hota(sequence) == pytest.approx(1.0)
    assert scores.idf1(sequence) == pytest.approx(1.0)
    assert scores.id_switches(sequence) == 0


def test_a_new_id_half_way_costs_association_only() -> None:
    sequence = scores.sequence_of(TRUTH, _pictures([7, 9], [7, 9], [8, 9], [8, 9]), 1)
    # DetA = 1; per match of object 1 the association is 2 / 4, of object 2 it is 1: AssA = 3/4
    assert scores.hota(sequence) == pytest.approx(np.sqrt(0.75))
    assert scores.idf1(sequence) == pytest.approx(6 / 8)
    assert scores.id_switches(sequence) == 1


def test_nothing_found_scores_zero() -> None:
    sequence = scores.sequence_of(TRUTH, _pictures(*[[0, 0]] * 4), 1)
    assert scores.hota(sequence) == 0.0
    assert scores.idf1(sequence) == 0.0


def test_reentry_counts_returns_with_the_old_id() -> None:
    truth = _pictures([1, 2], [1, 2], [0, 0], [0, 0], [0, 0], [1, 2])
    given = _pictures([5, 6], [5, 6], [0, 0], [0, 0], [0, 0], [5, 9])
    sequence = scores.sequence_of(truth, given, 1)
    assert scores.reentry_percent(sequence, away=2, hits=2) == 50.0
    assert np.isnan(scores.reentry_percent(sequence, away=9, hits=2))


def test_average_precision_rewards_good_predictions_that_come_first() -> None:
    iou = np.array([[0.9, 0.0, 0.0], [0.0, 0.1, 0.6]])
    assert scores.average_precision(iou, np.array([0.9, 0.1, 0.8]), 0.25) == 1.0
    assert scores.average_precision(iou, np.array([0.9, 0.8, 0.1]), 0.25) == pytest.approx(5 / 6)
    assert scores.average_precision(iou[:, :0], np.zeros(0), 0.25) == 0.0


def test_masks_are_scored_as_davis_does() -> None:
    import mask_scores

    truth, moved = np.zeros((100, 160), bool), np.zeros((100, 160), bool)
    truth[20:60, 20:60], moved[20:60, 40:80] = True, True
    assert mask_scores.region(truth, moved) == pytest.approx(1 / 3)
    assert mask_scores.region(truth, truth) == mask_scores.boundary(truth, truth) == 1.0
    assert mask_scores.boundary(truth, np.zeros_like(truth)) == 0.0
    shifted = np.roll(truth, 1, axis=1)
    assert mask_scores.boundary(truth, shifted) == 1.0  # within 0.8 % of the diagonal
    assert mask_scores.boundary(truth, moved) < 0.6
