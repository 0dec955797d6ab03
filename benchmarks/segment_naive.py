# SPDX-License-Identifier: Apache-2.0
"""The naive way to keep ids: masks that overlap from one picture to the next are the same thing."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

MIN_IOU = 0.2
KEPT_FRAMES = 30


class IouTracker:
    """Mask IoU with each track's last mask, Hungarian, forgotten after 30 pictures unseen.

    What SORT does with boxes (Bewley et al., ICIP 2016), with masks and without a motion model.
    """

    def __init__(self) -> None:
        self._masks: dict[int, tuple[np.ndarray, int]] = {}
        self._next, self._frame = 1, 0

    def update(self, instances: np.ndarray) -> np.ndarray:
        """Track ids in place of the instances' numbers (1…); 0 stays 0."""
        self._frame += 1
        count, ids = int(instances.max()), list(self._masks)
        area = np.bincount(instances.ravel(), minlength=count + 1)[1:]
        iou = np.zeros((count, len(ids)))
        for column, track in enumerate(ids):
            mask = self._masks[track][0]
            both = np.bincount(instances[mask], minlength=count + 1)[1:]
            iou[:, column] = both / np.maximum(mask.sum() + area - both, 1)
        rows, columns = linear_sum_assignment(-iou)
        held = {int(r): ids[c] for r, c in zip(rows, columns, strict=True) if iou[r, c] > MIN_IOU}
        table = np.zeros(count + 1, np.int64)
        for row in range(count):
            if row not in held:
                held[row], self._next = self._next, self._next + 1
            table[row + 1] = held[row]
            self._masks[held[row]] = (instances == row + 1, self._frame)
        fresh = self._frame - KEPT_FRAMES
        self._masks = {k: v for k, v in self._masks.items() if v[1] >= fresh}
        return np.asarray(table[instances])
