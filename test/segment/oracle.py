# SPDX-License-Identifier: Apache-2.0
"""Detector and masks that know the truth, and err only as told: the logic around them is tested."""

from __future__ import annotations

import numpy as np

from worldsystem_segment.learned.detector import Found
from worldsystem_segment.learned.mask_sessions import ObjectMask


def box_around(mask: np.ndarray) -> tuple[float, float, float, float]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


class OracleDetector:
    """Finds each true object of the picture it is shown; misses some, invents some, shakes all."""

    def __init__(
        self, truth_of, names, *, missed=0.0, invented=0.0, jitter=0.0, score=0.8, seed=0
    ) -> None:
        self._truth_of, self._names, self._score = truth_of, names, score
        self._missed, self._invented, self._jitter = missed, invented, jitter
        self._random = np.random.default_rng(seed)

    def detect(self, rgb, phrases, least) -> list[Found]:
        truth = self._truth_of(rgb)
        found = []
        for number in np.unique(truth[truth > 0]):
            mask, name = truth == number, self._names[int(number)]
            if mask.sum() < 30 or name not in phrases or self._random.random() < self._missed:
                continue
            x0, y0, x1, y1 = box_around(mask)
            shake = self._random.normal(0, self._jitter, 4) * (x1 - x0, y1 - y0, x1 - x0, y1 - y0)
            box = tuple(float(v) for v in np.array((x0, y0, x1, y1)) + shake)
            scores = tuple((p, self._score if p == name else 0.05) for p in phrases)
            found.append(Found(box, name, self._score, scores))
        if self._random.random() < self._invented:
            x, y = self._random.uniform(0, 0.7, 2) * truth.shape[::-1]
            box = (x, y, x + 0.2 * truth.shape[1], y + 0.2 * truth.shape[0])
            found.append(Found(box, phrases[0], 0.5, ((phrases[0], 0.5),)))
        return found


class OracleMasks:
    """Follows the true object that a prompt's box holds most of, for as long as it is in view.

    An object that was out of view for longer than `memory` pictures is not found again.
    """

    def __init__(self, truth_of, memory: int = 10) -> None:
        self._truth_of, self._memory = truth_of, memory
        self._held: dict[int, int] = {}
        self._prompts: dict = {}
        self._unseen: dict[int, int] = {}
        self.frame = -1

    @property
    def ids(self):
        return set(self._held) | set(self._prompts)

    def prompt(self, object_id, where) -> None:
        self._prompts[object_id] = where

    def remove(self, object_id) -> None:
        self._held.pop(object_id, None)
        self._prompts.pop(object_id, None)

    def step(self, rgb) -> dict[int, ObjectMask]:
        self.frame += 1
        truth = self._truth_of(rgb)
        for object_id, box in self._prompts.items():
            x0, y0, x1, y1 = (max(0, int(v)) for v in box)
            inside = truth[y0:y1, x0:x1]
            counts = np.bincount(inside[inside > 0], minlength=1)
            if object_id not in self._held and counts.sum():
                self._held[object_id] = int(counts.argmax())
        self._prompts.clear()
        masks = {}
        for object_id, number in self._held.items():
            mask = truth == number
            away = self._unseen.get(object_id, 0) > self._memory
            self._unseen[object_id] = (
                0 if mask.any() and not away else (self._unseen.get(object_id, 0) + 1)
            )
            masks[object_id] = ObjectMask(mask & (not away), 1.0 if mask.any() else -1.0)
        return masks
