# SPDX-License-Identifier: Apache-2.0
"""How well label pictures agree with the truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

VISIBLE_PX = 80  # fewer visible pixels of an object ask for nothing
MATCH_IOU = 0.5


def iou_table(truth: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Intersection over union of each truth id (row) with each label (column), from one count."""
    rows, columns = int(truth.max()) + 1, int(labels.max()) + 1
    joint = truth.ravel().astype(np.int64) * columns + labels.ravel()
    both = np.bincount(joint, minlength=rows * columns).reshape(rows, columns)
    union = both.sum(1)[:, None] + both.sum(0)[None, :] - both
    return both / np.maximum(union, 1)


@dataclass(frozen=True)
class Score:
    """Recall and precision of instances at IoU 0.5, and how often an object changed its id."""

    recall: float
    precision: float
    id_switches: int

    @staticmethod
    def of(frames, truths) -> Score:
        """Score label pictures against truth pictures of one sequence."""
        found = asked = right = given = switches = 0
        held: dict[int, int] = {}
        for frame, truth in zip(frames, truths, strict=True):
            table = iou_table(truth, frame.labels)
            matched = table[1:, 1:] > MATCH_IOU
            areas = np.bincount(truth.ravel(), minlength=table.shape[0])[1:]
            visible = areas >= VISIBLE_PX
            found += int((matched.any(axis=1) & visible).sum())
            asked += int(visible.sum())
            present = np.bincount(frame.labels.ravel(), minlength=table.shape[1])[1:] > 0
            right += int((matched.any(axis=0) & present).sum())
            given += int(present.sum())
            for truth_id, label in zip(*np.nonzero(matched), strict=True):
                switches += held.get(int(truth_id), int(label)) != int(label)
                held[int(truth_id)] = int(label)
        return Score(found / max(asked, 1), right / max(given, 1), switches)
